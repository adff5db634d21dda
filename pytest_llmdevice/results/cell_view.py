"""Holds what all runs together say of one cell: the sample of each check that counts, and the outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Final, TypeAlias

from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.results.environments import Environment
from pytest_llmdevice.results.records import CellDone, Check, Planned
from pytest_llmdevice.results.run_header import Run
from pytest_llmdevice.results.vocabulary import GOOD, WORST_FIRST, Outcome, SkipCause

Key: TypeAlias = tuple[str, str]
"""(target, id of the cell without `.sim`): what two runs have in common that ask the same question."""


NEAREST: Final[tuple[SkipCause, ...]] = (
    "unusable", "unsupported", "not offered", "does not apply", "by the test", "absent", "not requested"
)  # fmt: skip
"""The causes, the closest to running first."""


def base_id(cell_id: str) -> str:
    """The id without the `.sim` of a simulated cell."""
    return cell_id.removesuffix(".sim")


@dataclass(frozen=True, slots=True)
class Sample:
    """A check of a cell in one run."""

    run: Run
    check: Check


@dataclass(frozen=True, slots=True)
class Conflict:
    """A check of one cell that has different outcomes, none of which is simply newer than the other.

    Attributes:
        cell: the id of the cell.
        check: the check.
        samples: the latest one of each environment, that which counts first; all of them where `why` is `TWOFOLD`.
        why: whether it is the machines that differ, or one machine says two things of one commit.
    """

    cell: str
    check: str
    samples: tuple[Sample, ...]
    why: str


@dataclass
class CellView:
    """What is known of one cell after all runs.

    Attributes:
        target: the code under test.
        cell: the cell as it ran: simulated only where it never ran on real hardware.
        checks: the sample that counts, by check.
        planned: what became of the cell on each machine, with the run, the latest last.
        done: the records of the cell as it is in `cell`, with the run, the latest last; those of runs that skipped it
            only where all did.
        aborted: the runs that were gone before the cell was finished, and that no run of the same commit and no later
            one made good.
        loaded: whether there was a model in a run that counts.
        lacking: those of the checks that the matrix requires of the cell that did not run, as patterns of their names.
        exempt: the checks that were not asked of the cell, as those that are about simulated cards where none were.
    """

    target: str
    cell: Cell
    checks: dict[str, Sample] = field(default_factory=dict)
    planned: list[tuple[Run, Planned]] = field(default_factory=list)
    done: list[tuple[Run, CellDone]] = field(default_factory=list)
    aborted: list[Run] = field(default_factory=list)
    loaded: bool = True
    lacking: tuple[str, ...] = ()
    exempt: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The id of the cell."""
        return self.cell.id

    @cached_property
    def outcome(self) -> Outcome:
        """The worst of its checks; `skipped` where it never ran, `aborted` where a run was gone in the middle of it,
        and `partial` where nothing is wrong and it was not looked at as the matrix requires.
        """
        outcomes: set[Outcome] = {sample.check.outcome for sample in self.checks.values()}
        outcomes |= {record.outcome for _, record in self.done[-1:]} if not outcomes else set()
        if self.aborted:
            outcomes.add("aborted")
        # What was expected to fail may be the load.
        if (outcomes & GOOD and self.lacking) or ("passed" in outcomes and not self.loaded):
            outcomes.add("partial")
        return worst_of(outcomes)

    @property
    def ran(self) -> bool:
        """Whether it ran anywhere."""
        return self.outcome != "skipped"

    @property
    def last(self) -> CellDone | None:
        """The latest record of the whole cell; None where there is none."""
        return self.done[-1][1] if self.done else None

    @property
    def run(self) -> Run:
        """The run that the cell is taken from: that of its latest record, else the latest one that planned it."""
        return self.done[-1][0] if self.done else self.planned[-1][0]

    @property
    def environment(self) -> Environment:
        """Where it ran."""
        return Environment.of(self.cell, self.run)

    @property
    def reasons(self) -> dict[str, str]:
        """Why it did not run, by cause; empty where it ran."""
        if self.ran:
            return {}
        reasons = {str(planned.cause): planned.reason for _, planned in self.planned if planned.cause is not None}
        reasons |= {str(sample.check.cause): sample.check.message for sample in self.checks.values()}
        return reasons or {str(record.cause): "not requested: none of its tests was chosen" for _, record in self.done}

    @property
    def nearest_cause(self) -> SkipCause:
        """Why it did not run: of the causes on several machines the one that was closest to running, which says most.

        Raises:
            StopIteration: it ran.
        """
        return next(cause for cause in NEAREST if cause in self.reasons)


def worst_of(outcomes: set[Outcome]) -> Outcome:
    """The worst of some outcomes; `skipped` where there is none."""
    return next((outcome for outcome in WORST_FIRST if outcome in outcomes), "skipped")


def lacking(required: tuple[str, ...], exempt: tuple[str, ...], ran: set[str]) -> tuple[str, ...]:
    """Those of `required` that apply to a cell and that none of the checks that `ran` fits."""
    return tuple(
        pattern
        for pattern in required
        if pattern not in exempt and pattern not in ran and not any(fnmatchcase(name, pattern) for name in ran)
    )
