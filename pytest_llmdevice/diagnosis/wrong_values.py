"""What a tensor that does not have its value has instead, and what that usually means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.diagnosis.finding import Hint
from pytest_llmdevice.diagnosis.hints import values
from pytest_llmdevice.text import dtype_name

if TYPE_CHECKING:
    import torch

NEAR: Final = 0.35
"""Relative error of the norm up to which values are those that were expected, changed: fp4 loses 0.15, merging an
adapter less than this; unrelated values are off by about 1.4."""

GARBAGE: Final = 1e15
"""A magnitude that no weight has, and memory that was never written often does."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """What was found instead of the expected values.

    Attributes:
        what: in words, to stand behind the value that was found.
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
) -> Wrong:
    """What `actual` is, given that it is not `expected`; both of one shape, on the cpu.

    Args:
        actual: in the dtype that the model has.
        expected: in float32.
        buffer: whether it is a buffer that no checkpoint holds.
        initial_spread: the standard deviation that the model class draws its weights with.
        others: what a plain load holds under other names, to recognize a value in the wrong place.
    """
    found = actual.float()
    wrong = _lost(found, expected, buffer=buffer)
    wrong = wrong or _rounded(actual, expected, buffer=buffer)
    wrong = wrong or _misplaced(actual, expected, others or {})
    wrong = wrong or _scaled(found, expected, buffer=buffer)
    if wrong is None and not buffer:
        # Before what is near: a norm's ones are near its weights.
        wrong = _initial(found, expected, initial_spread)
    error = relative_error(found, expected)
    if wrong is None and error < NEAR:
        wrong = Wrong(f"near it, relative error {error:.2g}", values.OTHER_BUFFER if buffer else values.CHANGED)
    if wrong is None and buffer:
        wrong = Wrong("computed, from other settings", values.OTHER_BUFFER)
    return wrong or Wrong("unrelated values", values.OTHER_CHECKPOINT)


def _lost(found: torch.Tensor, expected: torch.Tensor, *, buffer: bool) -> Wrong | None:
    """Memory that holds nothing: zeros, what is no number, magnitudes that no weight has."""
    hint = values.NEVER_COMPUTED if buffer else values.NEVER_FILLED
    finite = found.isfinite()
    if bool((~finite & expected.isfinite()).any()):
        bad = ~finite & expected.isfinite()
        if not buffer and bool((expected.abs()[bad] > _LARGEST_HALF).all()):
            return Wrong("infinite: beyond what float16 holds", values.ROUNDED_WEIGHT)
        return Wrong(f"{int(bad.sum())} of {found.numel()} are inf or nan: memory that was never written", hint)
    if bool(expected.any()) and not bool(found.any()):
        return Wrong("all zeros", hint)
    size = found[finite].abs()
    tiny = (size > 0) & (size < _SMALLEST)
    if bool((size > GARBAGE).any()) or int(tiny.sum()) * 10 > size.numel():
        return Wrong("magnitudes of memory that was never written", hint)
    return None


_LARGEST_HALF: Final = 65504.0
_SMALLEST: Final = 1e-30


def _rounded(actual: torch.Tensor, expected: torch.Tensor, *, buffer: bool) -> Wrong | None:
    import torch

    for narrow in (torch.bfloat16, torch.float16):
        if narrow == actual.dtype:
            continue
        through = expected.to(narrow)
        near = torch.isclose(actual.float(), through.to(actual.dtype).float(), rtol=1e-6, atol=0.0)
        if bool(near.all()):
            name = dtype_name(narrow)
            hint = values.ROUNDED_BUFFER if buffer else values.ROUNDED_WEIGHT
            return Wrong(f"rounded to {name} and brought back", hint)
    return None


def _misplaced(actual: torch.Tensor, expected: torch.Tensor, others: Mapping[str, torch.Tensor]) -> Wrong | None:
    """Values that belong elsewhere: to another name, or to another place in the same tensor."""
    import torch

    if actual.numel() < _FEW:
        return None
    for name, other in others.items():
        if other.shape == actual.shape and torch.equal(other.to(actual.dtype), actual):
            return Wrong(f"the values of {name}", values.OTHER_CHECKPOINT)
    wanted = expected.to(actual.dtype)
    if actual.ndim == 2 and actual.shape[0] == actual.shape[1] and torch.equal(actual, wanted.T):
        return Wrong("transposed", values.OTHER_CHECKPOINT)
    if torch.equal(actual.float().flatten().sort().values, wanted.float().flatten().sort().values):
        return Wrong("the same numbers in another order", values.OTHER_CHECKPOINT)
    return None


_FEW: Final = 2


def _scaled(found: torch.Tensor, expected: torch.Tensor, *, buffer: bool) -> Wrong | None:
    norm = float(expected.norm())
    scale = float((found * expected).sum()) / norm**2 if norm else 0.0
    if scale and relative_error(found, expected * scale) < _SAME:
        return Wrong(f"all multiplied by {scale:.4g}", values.OTHER_BUFFER if buffer else values.CHANGED)
    return None


_SAME: Final = 1e-2
"""A half dtype's rounding, and room."""


def _initial(found: torch.Tensor, expected: torch.Tensor, spread: float) -> Wrong | None:
    """The values that a layer starts with: ones, zeros, or draws of one of the usual widths around zero."""
    if found.ndim < 2:
        first = float(found.flatten()[0])
        constant = first in (0.0, 1.0) and bool((found == first).all())
        return Wrong(f"all {first:g}, as a layer starts", values.INITIAL) if constant else None
    deviation, mean = float(found.std()), float(found.mean())
    # What PyTorch draws: a uniform distribution for linear layers, a normal one of width 1 for embeddings.
    usual = (spread, 1 / math.sqrt(3 * found.shape[-1]), 1.0)
    drawn = abs(mean) < deviation / 4 and any(abs(deviation / width - 1) < _ALIKE for width in usual)
    if drawn and abs(deviation / float(expected.std()) - 1) > _ALIKE:
        return Wrong(f"random, with the spread {deviation:.2g} of an initial value", values.INITIAL)
    return None


_ALIKE: Final = 0.1


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """||found - expected|| / ||expected||: inf where nothing was expected and something is there."""
    off, norm = float((found - expected).norm()), float(expected.norm())
    if norm:
        return off / norm
    return math.inf if off else 0.0
