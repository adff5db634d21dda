"""Describes what a tensor with wrong values contains instead, and the usual cause."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.diagnosis.finding import Hint
from pytest_llmdevice.diagnosis.hints import values
from pytest_llmdevice.matrix.vocabulary import dtype_name

if TYPE_CHECKING:
    import torch

NEAR: Final = 0.35
"""Up to this relative error, values count as changed versions of the expected ones. Quantization to fp4 has an error
of 0.15, merging an adapter less than this limit; unrelated values have about 1.4."""

GARBAGE: Final = 1e15
"""A magnitude that weights never have, and uninitialized memory often has."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a tensor contains instead of the expected values.

    Attributes:
        what: a description, to follow the actual value in a message.
        hint: the usual cause.
    """

    what: str
    hint: Hint


def explain(
    actual: torch.Tensor,
    expected: torch.Tensor,
    *,
    buffer: bool,
    initial_spread: float = 0.02,
    others: Mapping[str, torch.Tensor] | None = None,
) -> Explanation:
    """Explain the values of a tensor that differ from the expected ones.

    Args:
        actual: the values, in the model's dtype, on the CPU.
        expected: the expected values, in float32, of the same shape, on the CPU.
        buffer: whether it is a buffer that no checkpoint holds.
        initial_spread: the standard deviation with which the model class initializes weights.
        others: name -> value of the other tensors of a plain load, to recognize values in the wrong place.
    """
    actual_values = actual.float()
    wrong = _lost(actual_values, expected, buffer=buffer)
    wrong = wrong or _rounded(actual, expected, buffer=buffer)
    wrong = wrong or _misplaced(actual, expected, others or {})
    wrong = wrong or _shifted(actual_values, expected, buffer=buffer)
    wrong = wrong or _scaled(actual_values, expected, buffer=buffer)
    if wrong is None and not buffer:
        # Checked before nearness: the initial ones of a norm are near its trained weights.
        wrong = _initial(actual_values, expected, initial_spread)
    error = relative_error(actual_values, expected)
    if wrong is None and error < NEAR:
        wrong = Explanation(f"near it, relative error {error:.2g}", values.OTHER_BUFFER if buffer else values.CHANGED)
    if wrong is None and buffer:
        wrong = Explanation("computed, from other settings", values.OTHER_BUFFER)
    return wrong or Explanation("unrelated values", values.UNRELATED)


def _lost(actual: torch.Tensor, expected: torch.Tensor, *, buffer: bool) -> Explanation | None:
    """Recognize uninitialized memory: zeros, nan or inf, magnitudes that weights never have."""
    hint = values.NEVER_COMPUTED if buffer else values.NEVER_FILLED
    finite = actual.isfinite()
    if bool((~finite & expected.isfinite()).any()):
        bad = ~finite & expected.isfinite()
        if not buffer and bool((expected.abs()[bad] > _LARGEST_HALF).all()):
            return Explanation("infinite: beyond what float16 holds", values.ROUNDED_WEIGHT)
        return Explanation(f"{int(bad.sum())} of {actual.numel()} are inf or nan: memory that was never written", hint)
    if bool(expected.any()) and not bool(actual.any()):
        return Explanation("all zeros", hint)
    size = actual[finite].abs()
    tiny = (size > 0) & (size < _SMALLEST)
    if bool((size > GARBAGE).any()) or int(tiny.sum()) * 10 > size.numel():
        return Explanation("magnitudes of memory that was never written", hint)
    return None


_LARGEST_HALF: Final = 65504.0
_SMALLEST: Final = 1e-30


def _rounded(actual: torch.Tensor, expected: torch.Tensor, *, buffer: bool) -> Explanation | None:
    import torch

    for narrow in (torch.bfloat16, torch.float16):
        if narrow == actual.dtype:
            continue
        through = expected.to(narrow)
        near = torch.isclose(actual.float(), through.to(actual.dtype).float(), rtol=1e-6, atol=0.0)
        if bool(near.all()):
            name = dtype_name(narrow)
            hint = values.ROUNDED_BUFFER if buffer else values.ROUNDED_WEIGHT
            return Explanation(f"rounded to {name} and brought back", hint)
    return None


def _misplaced(actual: torch.Tensor, expected: torch.Tensor, others: Mapping[str, torch.Tensor]) -> Explanation | None:
    """Recognize values that belong to another name, or to another position in the same tensor."""
    import torch

    if actual.numel() < _MIN_VALUES:
        return None
    for name, other in others.items():
        if other.shape == actual.shape and torch.equal(other.to(actual.dtype), actual):
            return Explanation(f"the values of {name}", values.OTHER_CHECKPOINT)
    wanted = expected.to(actual.dtype)
    if actual.ndim == 2 and actual.shape[0] == actual.shape[1] and torch.equal(actual, wanted.T):
        return Explanation("transposed", values.OTHER_CHECKPOINT)
    if torch.equal(actual.float().flatten().sort().values, wanted.float().flatten().sort().values):
        return Explanation("the same numbers in another order", values.OTHER_CHECKPOINT)
    return None


_MIN_VALUES: Final = 2


def _shifted(actual: torch.Tensor, expected: torch.Tensor, *, buffer: bool) -> Explanation | None:
    """Recognize a constant that was added: the 1 of a norm, from the file and from the model."""
    off = actual - expected
    constant = float(off.mean())
    if not constant or abs(constant) < _SHIFT * float(expected.abs().max()):
        return None
    # A rounding of what is stored is no more than a share of the values themselves.
    if float((off - constant).abs().max()) > _ROUNDING * float(actual.abs().max()):
        return None
    return Explanation(f"{constant:.4g} added to each", values.OTHER_BUFFER if buffer else values.CHANGED)


_SHIFT: Final = 0.05
"""The smallest constant, as a share of the largest value, that is told from rounding."""


def _scaled(actual: torch.Tensor, expected: torch.Tensor, *, buffer: bool) -> Explanation | None:
    norm = float(expected.norm())
    scale = float((actual * expected).sum()) / norm**2 if norm else 0.0
    if scale and relative_error(actual, expected * scale) < _ROUNDING:
        return Explanation(f"all multiplied by {scale:.4g}", values.OTHER_BUFFER if buffer else values.CHANGED)
    return None


_ROUNDING: Final = 1e-2
"""The rounding of a 16-bit dtype, with a margin."""


def _initial(actual: torch.Tensor, expected: torch.Tensor, spread: float) -> Explanation | None:
    """Recognize initial values of a layer: ones, zeros, or random values of one of the usual widths around zero."""
    if actual.ndim < 2:
        first = float(actual.flatten()[0])
        constant = first in (0.0, 1.0) and bool((actual == first).all())
        return Explanation(f"all {first:g}, as a layer starts", values.INITIAL) if constant else None
    deviation, mean = float(actual.std()), float(actual.mean())
    # PyTorch initializes linear layers uniformly, and embeddings with a standard normal distribution.
    usual = (spread, 1 / math.sqrt(3 * actual.shape[-1]), 1.0)
    drawn = abs(mean) < deviation / 4 and any(abs(deviation / width - 1) < _SPREAD_TOLERANCE for width in usual)
    if drawn and abs(deviation / float(expected.std()) - 1) > _SPREAD_TOLERANCE:
        return Explanation(f"random, with the spread {deviation:.2g} of an initial value", values.INITIAL)
    return None


_SPREAD_TOLERANCE: Final = 0.1


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """||actual - expected|| / ||expected||; inf if `expected` is all zeros and `actual` is not."""
    off, norm = float((actual - expected).norm()), float(expected.norm())
    if norm:
        return off / norm
    return math.inf if off else 0.0
