"""Checks the logits in a target's own generation loop against one forward pass over the generated tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.generation import token_rows
from pytest_llmdevice.checks.noise import Inspection, Limits, gap, gap_finding
from pytest_llmdevice.checks.token_causes import handed_to
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.sequences import STEPS
from pytest_llmdevice.inference.generation import generate_with
from pytest_llmdevice.inference.logits import continuation_logits
from pytest_llmdevice.model.observation import observed
from pytest_llmdevice.model.wrappers import core
from pytest_llmdevice.monitoring.trace import Trace
from pytest_llmdevice.monitoring.tracing import traced

if TYPE_CHECKING:
    import torch
    from torch import nn

NEW: Final = 3
"""New tokens: the first one is chosen after the prompt alone, the others also use the cache."""

KEPT: Final = 64
"""The number of the latest forward passes whose logits are kept."""


def step_findings(target: Any, model: Any, prompt: Sequence[int], limits: Limits) -> Inspection:
    """Let `target` generate for `prompt` alone, and compare the logits of each step with a pass without a cache.

    Tokens may be right although the logits are wrong: after a rounded cache, positions that are off by one far from
    the start, or a prompt that was cut. Steps are only compared if each token has the largest logit of its step;
    with sampling, beams or drafts it is unknown which logits belong to which token.
    """
    return compare_steps(model, prompt, watch_generation(target, model, prompt), limits)


@dataclass(frozen=True, slots=True)
class WatchedGeneration:
    """What a target generated for one prompt.

    Attributes:
        tokens: the new tokens; empty if it returned something else.
        logits: the logits of the last position of each forward pass, of shape (vocabulary,).
        trace: what was handed to the model.
    """

    tokens: Sequence[int]
    logits: Sequence[torch.Tensor]
    trace: Trace = field(default_factory=Trace, repr=False)


def watch_generation(target: Any, model: Any, prompt: Sequence[int], new: int = NEW) -> WatchedGeneration:
    """Let `target` generate `new` tokens for `prompt` alone, and record the logits and the inputs of each step."""
    with last_logits(model) as steps, traced(model) as trace:
        rows = token_rows(generate_with(target, model, [list(prompt)], new))
    return WatchedGeneration(rows[0] if rows else (), steps, trace)


def compare_steps(model: Any, prompt: Sequence[int], generated: WatchedGeneration, limits: Limits) -> Inspection:
    """Compare the recorded logits of each step with a forward pass without a cache; see `step_findings`."""
    tokens = generated.tokens
    if not tokens:
        return [], {}
    logits = _aligned(generated.logits, tokens)
    where = f"a prompt of {len(prompt)} tokens"
    if logits is None:
        return [], {f"steps not told apart, {where}": 1}
    clean = continuation_logits(model, prompt, tokens).float().cpu()
    if logits.shape != clean.shape:
        return [], {f"steps not told apart, {where}": 1}
    difference = gap(logits, clean, limits)
    findings: list[Finding] = []
    if not difference.within(limits):
        handed = handed_to(generated.trace, prompt, model)
        later = bool(difference.beyond) and difference.first > 0 and not generated.trace.autocast
        hint = handed.hint or (STEPS if later else None)
        of = "those of a forward pass over the prompt and the tokens before"
        name = f"logits that generate chooses new tokens from, after {where}"
        finding = gap_finding(name, difference, limits, hint, of=of)
        findings.append(replace(finding, actual=f"{finding.actual}; {handed}", kind="answer"))
    return findings, {f"steps after {where}": len(tokens)}


@contextmanager
def last_logits(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Record the logits of the last position of each forward pass over one row, in float32 on the CPU.

    Each has the shape (vocabulary,).
    """
    steps: list[torch.Tensor] = []

    def record(_: nn.Module, __: Any, output: Any) -> None:
        logits = getattr(output, "logits", None)
        if observed() and logits is not None and logits.ndim == 3 and len(logits) == 1 and logits.shape[1]:
            steps.append(logits[0, -1].detach().float().cpu())
            del steps[:-KEPT]

    handle = core(model).register_forward_hook(record)
    try:
        yield steps
    finally:
        handle.remove()


def _aligned(steps: Sequence[torch.Tensor], tokens: Sequence[int]) -> torch.Tensor | None:
    """The logits from which `tokens` were chosen: the latest ones, or those before a last pass that chose nothing."""
    import torch

    for end in (len(steps), len(steps) - 1):
        part = steps[max(end - len(tokens), 0) : end]
        if len(part) == len(tokens) and all(
            int(logits.argmax()) == token for logits, token in zip(part, tokens, strict=True)
        ):
            return torch.stack(list(part))
    return None
