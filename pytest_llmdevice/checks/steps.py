"""The logits that a target's own loop chooses from, against one forward pass over what it chose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.generation import token_rows
from pytest_llmdevice.checks.noise import Inspection, Limits, finding, gap
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.generation import OTHER_TEXT
from pytest_llmdevice.diagnosis.hints.sequences import STEPS
from pytest_llmdevice.inference.generation import generate_with
from pytest_llmdevice.inference.logits import continuation_logits
from pytest_llmdevice.model.wrappers import core

if TYPE_CHECKING:
    import torch
    from torch import nn

NEW: Final = 3
"""New tokens: the first one is chosen after the prompt, the others with a history too."""

KEPT: Final = 64
"""Forward passes whose logits are kept, the latest ones."""


def step_findings(target: Any, model: Any, prompt: Sequence[int], limits: Limits) -> Inspection:
    """Have `target` generate for `prompt` alone, and compare each step with a forward pass without a cache.

    Choices may be right by a wide margin where the logits are wrong: a history that was rounded, positions that are
    off by one far from the start, a prompt that was cut. Steps are only compared where each of the target's tokens is
    the best by what it saw: with samplers, beams or drafts there is no telling which logits belong to which token. Then
    a token is looked at by itself: one that the model would hardly choose after this prompt was chosen after another.
    """
    return compared(model, prompt, watched(target, model, prompt), limits)


@dataclass(frozen=True, slots=True)
class Watched:
    """What a target generated for one prompt.

    Attributes:
        tokens: the new ones; empty where it returned something else.
        said: the logits of the last position of each forward pass meanwhile.
    """

    tokens: Sequence[int]
    said: Sequence[torch.Tensor]


def watched(target: Any, model: Any, prompt: Sequence[int]) -> Watched:
    """Have `target` generate for `prompt` alone. Raises whatever it raises."""
    with said_last(model) as steps:
        rows = token_rows(generate_with(target, model, [list(prompt)], NEW))
    return Watched(rows[0] if rows else (), steps)


def compared(model: Any, prompt: Sequence[int], generated: Watched, limits: Limits) -> Inspection:
    """See `step_findings`."""
    tokens = generated.tokens
    if not tokens:
        return [], {}
    seen = _aligned(generated.said, tokens)
    where = f"a prompt of {len(prompt)} tokens"
    if seen is None:
        return [], {f"steps not told apart, {where}": 1}
    clean = continuation_logits(model, prompt, tokens).float().cpu()
    if seen.shape != clean.shape:
        return [], {f"steps not told apart, {where}": 1}
    found = gap(seen, clean, limits)
    findings: list[Finding] = []
    if not found.within(limits):
        hint = OTHER_TEXT if found.beyond and found.first == 0 else STEPS
        of = "those of a forward pass over the prompt and the tokens before"
        name = f"logits that generate chooses new tokens from, after {where}"
        findings.append(finding(name, found, limits, hint, of=of))
    return findings, {f"steps after {where}": len(tokens)}


@contextmanager
def said_last(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """The logits of the last position of each forward pass over one row, float32 on the cpu of shape (vocabulary,)."""
    found: list[torch.Tensor] = []

    def note(_: nn.Module, __: Any, output: Any) -> None:
        logits = getattr(output, "logits", None)
        if logits is not None and logits.ndim == 3 and len(logits) == 1 and logits.shape[1]:
            found.append(logits[0, -1].detach().float().cpu())
            del found[:-KEPT]

    handle = core(model).register_forward_hook(note)
    try:
        yield found
    finally:
        handle.remove()


def _aligned(steps: Sequence[torch.Tensor], tokens: Sequence[int]) -> torch.Tensor | None:
    """The logits that `tokens` were chosen from: the latest ones, or those before a pass that chose nothing."""
    import torch

    for end in (len(steps), len(steps) - 1):
        part = steps[max(end - len(tokens), 0) : end]
        if len(part) == len(tokens) and all(
            int(one.argmax()) == token for one, token in zip(part, tokens, strict=True)
        ):
            return torch.stack(list(part))
    return None
