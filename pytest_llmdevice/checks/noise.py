"""Decides which differences of logits are numeric noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.checks.differences import overall_error, relative_errors
from pytest_llmdevice.checks.tolerance import generation_tolerance
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.loading.quantization import quantization_of
from pytest_llmdevice.matrix.cell import Cell

if TYPE_CHECKING:
    import torch

    from pytest_llmdevice.diagnosis.finding import Hint

FLOAT32: Final = 1e-4
"""The largest relative error in float32 on the CPU. Measured over the zoo: at most 5e-6."""

FOUR_BITS: Final = 0.01
"""The largest relative error with 4-bit weights, whose CPU kernels compute in lower precision. Measured: 0.004."""

SINGLE: Final = 2.0
"""The allowed error of one position, as a multiple of that over all positions. Measured in bfloat16 with fused
attention: at most 0.06 for one position, and 0.03 over all."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest relative errors (see `tolerance.tolerance`) that count as noise.

    Attributes:
        overall: the limit over all positions.
        single: the limit for one position.
    """

    overall: float
    single: float

    @classmethod
    def of(cls, cell: Cell) -> Limits:
        """The limits for two runs of one loaded model whose inputs differ only in shape."""
        overall = generation_tolerance(cell)
        entry = quantization_of(cell)
        if entry.packs and not entry.batch_error:
            overall = max(overall, FOUR_BITS)
        elif cell.dtype == "float32" and (cell.kind == "cpu" or cell.simulated):
            # Only on the CPU: cards may use TF32. Products of 8-bit weights search the whole input for outliers.
            overall = FLOAT32 + entry.batch_error
        return cls(overall, SINGLE * overall)


@dataclass(frozen=True, slots=True)
class Gap:
    """The difference between two tensors of logits for the same tokens.

    Attributes:
        overall: the relative error over all positions.
        worst: the largest relative error of a position.
        first: the first position beyond the limit; 0 if none is.
        beyond: the number of positions beyond the limit.
        positions: the number of positions.
    """

    overall: float
    worst: float
    first: int
    beyond: int
    positions: int

    def within(self, limits: Limits) -> bool:
        """Whether noise explains the difference; false for nan."""
        return self.overall <= limits.overall and self.worst <= limits.single

    def __str__(self) -> str:
        if not self.beyond:
            return f"{self.overall:.3g} over all positions"
        return f"{self.worst:.3g}, beyond it {self.beyond} of {self.positions} positions"


def gap(logits: torch.Tensor, expected: torch.Tensor, limits: Limits) -> Gap:
    """Measure the difference between `logits` and `expected`, both of shape (positions, vocabulary)."""
    errors = [float("inf") if isnan(error) else error for error in relative_errors(logits, expected).tolist()]
    over = [position for position, error in enumerate(errors) if not error <= limits.single]
    overall = overall_error([logits], [expected])
    return Gap(overall, max(errors, default=0.0), over[0] if over else 0, len(over), len(errors))


def gap_finding(
    where: str, difference: Gap, limits: Limits, hint: Hint | None, *, start: int = 0, of: str = ""
) -> Finding:
    """Make a finding of a difference; `start` is the position of its first logits, and `of` names the expected ones."""
    return Finding(
        f"{where}, first at position {start + difference.first}",
        f"{of or 'the same logits'}, relative error at most {limits.single:.2g}",
        str(difference),
        hint,
        subject=where,
        size=max(difference.overall, difference.worst),
    )


Inspection = tuple[Sequence[Finding], dict[str, int | float | str]]
"""The findings and the evidence of a part of a check."""
