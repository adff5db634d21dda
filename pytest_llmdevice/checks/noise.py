"""Decides which differences of logits are numeric noise, and which faults a plain load of the model has too."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.differences import overall_error, relative_errors
from pytest_llmdevice.checks.tolerance import generation_tolerance
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.errors import of_target
from pytest_llmdevice.loading.pretrained import from_pretrained
from pytest_llmdevice.loading.quantization import quantization_of
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.zoo.families import Family

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
        if entry.layer_class and not entry.batch_error:
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
    )


Inspection = tuple[Sequence[Finding], dict[str, int | float | str]]
"""The findings and the evidence of a part of a check."""

SHARED: Final = "as a plain load does"


def own_faults(
    inspect: Callable[[Any], Inspection],
    model: Any,
    cell: Cell,
    checkpoint: str | None,
    *,
    plain: Callable[[str, Cell], Any] | None = None,
    trusted: Collection[str] | None = None,
) -> Inspection:
    """Return the faults that `inspect` finds in `model` and not in a plain load.

    A fault of the architecture (bidirectional attention, a state that cannot be continued) shows in a plain load too,
    and is no fault of the loader. The zoo's families are known to have none, so that no plain load is made for them;
    it would not help if the loader changed the classes that a plain load uses.

    Args:
        inspect: inspects a model.
        model: the model under test.
        cell: what was requested.
        checkpoint: the local folder of the model; without it there is no plain load.
        plain: makes the plain load; by default on the CPU, in the cell's dtype and quantization.
        trusted: models whose plain load has no such faults; by default those of `trusted_families`.

    Raises:
        Exception: what `inspect` raises for `model` and not for a plain load.
    """
    known = trusted_families() if trusted is None else trusted
    own, error = _attempt(inspect, model)
    if (error is not None or own[0]) and checkpoint is not None and cell.model not in known:
        shared, plain_error = _attempt(inspect, (plain or _on_the_cpu)(checkpoint, cell))
        if error is not None and type(plain_error) is type(error):
            return [], {SHARED: 1}
        places = {finding.about for finding in shared[0]}
        rest = [finding for finding in own[0] if finding.about not in places]
        if len(rest) < len(own[0]):
            own = rest, {**own[1], SHARED: len(own[0]) - len(rest)}
    if error is not None:
        raise error
    return own


def trusted_families() -> frozenset[str]:
    """The families whose plain loads are known to have none of the faults that checks look for."""
    return frozenset(name for name, family in current().of(Family).items() if family.trusted)


def _attempt(inspect: Callable[[Any], Inspection], model: Any) -> tuple[Inspection, BaseException | None]:
    try:
        return inspect(model), None
    except of_target() as error:  # it runs the model under test, which may raise anything
        return ((), {}), error


def _on_the_cpu(checkpoint: str, cell: Cell) -> Any:
    return from_pretrained(checkpoint, Cell(cell.model, "cpu", cell.dtype, cell.quantization))
