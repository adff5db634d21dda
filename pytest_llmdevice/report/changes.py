"""Says in words what changed since a baseline was written."""

from __future__ import annotations

from pytest_llmdevice.results.run_header import BUILTIN
from pytest_llmdevice.results.transitions import NAMES, Comparison, Transition, count_text
from pytest_llmdevice.results.vocabulary import outcome_text
from pytest_llmdevice.text import plural


def differences_text(comparison: Comparison) -> str:
    """`"3 regressions, 1 vanished, 9,000 unchanged"`."""
    counts = comparison.counts
    differences = [count_text(name, counts[name]) for name in NAMES if counts[name]]
    return ", ".join([*differences, f"{comparison.unchanged:,} unchanged"])


def comparison_line(comparison: Comparison) -> str:
    """`"Since baseline.json: 3 regressions, 1 vanished, 9,000 unchanged"`."""
    return f"Since {comparison.baseline}: {differences_text(comparison)}"


def transition_text(transition: Transition) -> str:
    """`"llama.cpu.fp32.none.to dtypes: passed -> failed: lm_head.weight: ..."`."""
    check = f" {transition.check}" if transition.check else ""
    detail = f": {transition.detail}" if transition.detail else ""
    before, after = outcome_text(transition.before), outcome_text(transition.after)
    target = f" of {transition.target}" if transition.target != BUILTIN else ""
    return f"{transition.cell}{target}{check}: {before} -> {after}{detail}"


def named_transition_text(transition: Transition) -> str:
    """`"regression: llama.cpu.fp32.none.to dtypes: passed -> failed: lm_head.weight: ..."`."""
    return f"{transition.name}: {transition_text(transition)}"


def worst_transitions(comparison: Comparison, most: int) -> list[str]:
    """The worst `most` transitions, a line each, and how many there are besides."""
    lines = [named_transition_text(transition) for transition in comparison.transitions[:most]]
    left = len(comparison.transitions) - len(lines)
    return [*lines, f"and {plural(left, 'more difference')}"] if left else lines
