"""Measures how far logits are from the logits of a reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch


def relative_errors(logits: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """||logits - expected|| / ||expected - mean(expected)|| over the vocabulary, of shape (positions,)."""
    errors: torch.Tensor = (logits - expected).norm(dim=-1) / _spread(expected)
    return errors


def overall_error(logits: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """The relative error over all positions, see `tolerance.tolerance`; nan if a logit is nan.

    If there are no expected logits, or all are equal, any deviation is an infinite error.
    """
    pairs = list(zip(logits, expected, strict=True))
    deviation = sum(float((own - wanted).norm() ** 2) for own, wanted in pairs)
    spread = sum(float(_spread(wanted).norm() ** 2) for _, wanted in pairs)
    if spread == 0:
        return float("inf") if deviation else 0.0
    return float((deviation / spread) ** 0.5)


def _spread(expected: torch.Tensor) -> torch.Tensor:
    spread: torch.Tensor = (expected - expected.mean(-1, keepdim=True)).norm(dim=-1)
    return spread


def allowed_gap(logits: torch.Tensor, tolerance: float) -> float:
    """How far below the largest of `logits` a token's logit may be, if noise is to explain that it was chosen."""
    # Two logits can deviate in opposite directions, each by the largest deviation of one.
    return 2 * tolerance * float((logits - logits.mean()).std()) * PEAK


def is_choice(logits: torch.Tensor, token: int, tolerance: float) -> bool:
    """Whether `token` has the largest of `logits`, or one that noise may have made the largest."""
    return 0 <= token < len(logits) and float(logits.max() - logits[token]) <= allowed_gap(logits, tolerance)


PEAK: Final = 4.0
"""How many standard deviations the largest of a few hundred normally distributed errors reaches, rounded up."""
