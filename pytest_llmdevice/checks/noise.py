"""What numeric noise explains where a model is compared with itself, and where its plain load has the same fault."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.agreement import overall_error, relative_errors
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
"""The largest relative error in float32 on the cpu: measured over the zoo, at most 5e-6."""

FOUR_BITS: Final = 0.01
"""The same with weights of 4 bits, whose kernels on the cpu compute in less: at most 0.004."""

SINGLE: Final = 2.0
"""How much further than all positions together a single one may be off: measured in bfloat16 with fused attention, at
most 0.06, and 0.03 together."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest relative errors (see `tolerance.tolerance`) that are noise.

    Attributes:
        overall: of all positions together.
        single: of one position.
    """

    overall: float
    single: float

    @classmethod
    def of(cls, cell: Cell) -> Limits:
        """For two runs of one loaded model, of which only the shapes differ."""
        overall = generation_tolerance(cell)
        entry = quantization_of(cell)
        if entry.layer_class and not entry.batch_error:
            overall = max(overall, FOUR_BITS)
        elif cell.dtype == "float32" and (cell.kind == "cpu" or cell.simulated):
            # Matrix products of a card may be in TF32. Those of 8-bit weights look for outliers in the whole input.
            overall = FLOAT32 + entry.batch_error
        return cls(overall, SINGLE * overall)


@dataclass(frozen=True, slots=True)
class Gap:
    """How far logits are from others of the same tokens.

    Attributes:
        overall: the relative error of all positions together.
        worst: that of the worst position.
        first: the first position beyond the limit, 0 where only the whole is beyond it.
        beyond: how many positions are.
        positions: how many there are.
    """

    overall: float
    worst: float
    first: int
    beyond: int
    positions: int

    def within(self, limits: Limits) -> bool:
        """Whether noise explains it. A nan is not explained."""
        return self.overall <= limits.overall and self.worst <= limits.single

    def __str__(self) -> str:
        if not self.beyond:
            return f"{self.overall:.3g} over all positions"
        return f"{self.worst:.3g}, beyond it {self.beyond} of {self.positions} positions"


def gap(logits: torch.Tensor, expected: torch.Tensor, limits: Limits) -> Gap:
    """How far `logits` are from `expected`, both of shape (positions, vocabulary)."""
    errors = [float("inf") if isnan(error) else error for error in relative_errors(logits, expected).tolist()]
    over = [position for position, error in enumerate(errors) if not error <= limits.single]
    overall = overall_error([logits], [expected])
    return Gap(overall, max(errors, default=0.0), over[0] if over else 0, len(over), len(errors))


def finding(where: str, found: Gap, limits: Limits, hint: Hint, *, start: int = 0, of: str = "") -> Finding:
    """`found` as a finding, its first position counted from `start`."""
    return Finding(
        f"{where}, first at position {start + found.first}",
        f"{of or 'the same logits'}, relative error at most {limits.single:.2g}",
        str(found),
        hint,
        subject=where,
    )


Inspection = tuple[Sequence[Finding], dict[str, int | float | str]]

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
    """What `inspect` finds in `model` and not in a plain load.

    Architectures differ: one may read both ways, another may have no way to go on from a state. What a plain load does
    too is no fault of the loader. The zoo's families are known to do none of it, and need no second look; nor would it
    be a fair one where the loader changed the classes that the plain load is made of.

    Args:
        inspect: what to look for, given a model.
        model: the model under test.
        cell: what was asked for.
        checkpoint: the local folder it was loaded from; without it there is no plain load.
        plain: makes the plain load; one on the cpu, in the cell's dtype and quantization, by default.
        trusted: models that a plain load has no such fault of; those of `trusted_families` by default.

    Raises:
        Exception: whatever `inspect` raises for `model` and not for a plain load.
    """
    known = trusted_families() if trusted is None else trusted
    own, error = _attempt(inspect, model)
    if (error is not None or own[0]) and checkpoint is not None and cell.model not in known:
        theirs, their_error = _attempt(inspect, (plain or _on_the_cpu)(checkpoint, cell))
        if error is not None and type(their_error) is type(error):
            return [], {SHARED: 1}
        places = {finding.about for finding in theirs[0]}
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
