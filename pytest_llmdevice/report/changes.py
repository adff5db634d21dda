"""What changed since a baseline, in words."""

from __future__ import annotations

from typing import Final

from pytest_llmdevice.results.gate_text import told
from pytest_llmdevice.results.transitions import NAMES, Comparison, Name, Transition
from pytest_llmdevice.text import plural

WORDS: Final[dict[Name, tuple[str, str]]] = {
    "regression": ("regression", "regressions"),
    "aborted": ("aborted", "aborted"),
    "hollow": ("hollow", "hollow"),
    "skipped": ("skipped now", "skipped now"),
    "vanished": ("vanished", "vanished"),
    "other-tokens": ("with other tokens", "with other tokens"),
    "slower": ("slower", "slower"),
    "larger": ("larger", "larger"),
    "not-comparable": ("not comparable", "not comparable"),
    "expected": ("now expected to fail", "now expected to fail"),
    "unused": ("unused entry", "unused entries"),
    "fixed": ("fixed", "fixed"),
    "new": ("new", "new"),
}
"""One and several of each."""

assert set(WORDS) == set(NAMES)


def headline(comparison: Comparison) -> str:
    """`"Since baseline.json: 3 regressions, 1 vanished; 9000 as they were"`."""
    counts = comparison.counts
    found = ", ".join(plural(counts[name], *WORDS[name]) for name in NAMES if counts[name])
    return f"Since {comparison.baseline}: {found or 'nothing changed'}; {comparison.unchanged} as before"


def described(change: Transition) -> str:
    """`"regression: llama.cpu.fp32.none.to dtypes: passed -> failed: lm_head.weight: ..."`."""
    return f"{change.name}: {told(change)}"


def changes(comparison: Comparison, most: int) -> list[str]:
    """The worst `most` transitions, and how many there are besides."""
    found = [described(change) for change in comparison.transitions[:most]]
    left = len(comparison.transitions) - len(found)
    return [*found, f"and {plural(left, 'more difference')}"] if left else found
