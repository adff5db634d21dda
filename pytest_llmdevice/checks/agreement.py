"""The check that a cell says what the same model says on the cpu in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.result import Finding, Result
from pytest_llmdevice.loading.generation import inputs_for
from pytest_llmdevice.loading.logits import forward_logits
from pytest_llmdevice.loading.reference import Reference

if TYPE_CHECKING:
    import torch

Tokens = Sequence[Sequence[int]]

NUMERIC: Final = (
    "the logits are finite and wrong: weights of another checkpoint or dtype, buffers that were never computed "
    "or were rounded, or another attention mask or position numbering"
)
CHOICE: Final = (
    "the forward pass agrees and generation does not: padding on the wrong side, a missing attention mask, "
    "wrong position ids, sampling, or a cache in another dtype"
)


def relative_errors(logits: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Relative error of each position, of shape (positions,): see `tolerance.tolerance` for the definition."""
    spread = (expected - expected.mean(-1, keepdim=True)).norm(dim=-1)
    errors: torch.Tensor = (logits - expected).norm(dim=-1) / spread
    return errors


def check_agreement(
    model: Any, expected: Reference, prompts: Tokens, generated: Sequence[Sequence[int]], tolerance: float
) -> Result:
    """Logits of each prompt, run alone, are within `tolerance` of the reference at every position, and each
    generated sequence is greedy as far as the reference can tell.

    Sequences are not compared as text: at the first token that differs from the reference's, the reference
    must have held the chosen one for nearly as good as its own, the gap being within what `tolerance` allows.
    """
    findings = []
    worst, positions, same = 0.0, 0, 0
    for number, (prompt, reference) in enumerate(zip(prompts, expected.logits, strict=True)):
        logits = forward_logits(model, inputs_for(model, [prompt]))[0].float().cpu()
        if logits.shape != reference.shape:
            findings.append(Finding(f"prompt {number}", f"logits {tuple(reference.shape)}", str(tuple(logits.shape))))
            continue
        errors = relative_errors(logits, reference)
        worst = max(worst, float(errors.max()))
        positions += len(errors)
        same += int((logits.argmax(-1) == reference.argmax(-1)).sum())
        # Written so that a nan, which compares false to everything, is a finding.
        bad = [position for position, error in enumerate(errors.tolist()) if not error <= tolerance]
        if bad:
            findings.append(
                Finding(
                    f"prompt {number}, first at position {bad[0]} of {len(errors)}",
                    f"relative error of the logits at most {tolerance:g}",
                    f"{errors[bad[0]]:.3g} (worst {errors.max():.3g}, {len(bad)} positions)",
                    NUMERIC,
                )
            )
    findings += _choices(expected, generated, tolerance)
    evidence: dict[str, int | float | str] = {
        "positions": positions,
        "worst relative error": float(f"{worst:.3g}"),
        "tolerance": tolerance,
        "same best token": f"{same} of {positions}",
        "generated tokens": sum(map(len, generated)),
    }
    return Result("agreement", tuple(findings), evidence)


def _choices(expected: Reference, generated: Sequence[Sequence[int]], tolerance: float) -> list[Finding]:
    findings = []
    for number, (row, tokens, steps) in enumerate(zip(generated, expected.tokens, expected.steps, strict=True)):
        step = next((at for at, pair in enumerate(zip(row, tokens, strict=False)) if pair[0] != pair[1]), None)
        if step is None:
            continue
        # Beyond the first difference the two continue from other prompts: only this step can be judged.
        logits = steps[step]
        order = logits.argsort(descending=True).tolist()
        gap = float(logits[tokens[step]] - logits[row[step]])
        # Two logits can each be off by the largest deviation of one: the norm spread over few entries.
        allowed = 2 * tolerance * float((logits - logits.mean()).std()) * PEAK
        if not gap <= allowed:
            findings.append(
                Finding(
                    f"prompt {number}, new token {step}",
                    f"token {tokens[step]}, or one within {allowed:.3g} of its logit",
                    f"token {row[step]}, {gap:.3g} below it (number {order.index(row[step]) + 1} in its ranking)",
                    CHOICE,
                )
            )
    return findings


PEAK: Final = 4.0
"""How many standard deviations the largest of a few hundred normally distributed errors reaches, rounded up."""
