"""Many runs as one matrix: for each cell and check the record that counts, what contradicts it, and what never ran."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.results.environments import Environment
from pytest_llmdevice.results.records import WORST_FIRST, CellDone, Check, Outcome, Planned, Run
from pytest_llmdevice.results.store import RunFile

Key: TypeAlias = tuple[str, str]
"""(target, id of the cell without `.sim`): what two runs have in common that ask the same question."""


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
        samples: the latest one of each environment, that which counts first.
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
        planned: what became of the cell on each machine, with the run.
        done: the records of the cell as it is in `cell`, with the run, the latest last.
        aborted: the runs that planned it and were gone before it was finished.
    """

    target: str
    cell: Cell
    checks: dict[str, Sample] = field(default_factory=dict)
    planned: list[tuple[Run, Planned]] = field(default_factory=list)
    done: list[tuple[Run, CellDone]] = field(default_factory=list)
    aborted: list[Run] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The id of the cell."""
        return self.cell.id

    @cached_property
    def outcome(self) -> Outcome:
        """The worst of its checks; `skipped` where it never ran, `aborted` where its run was gone before any check."""
        found = {sample.check.outcome for sample in self.checks.values()}
        found |= {record.outcome for _, record in self.done[-1:]} if not found else set()
        if self.aborted and not self.done:
            found.add("aborted")
        return next((outcome for outcome in WORST_FIRST if outcome in found), "skipped")

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
        if self.done:
            return self.done[-1][0]
        samples = [sample.run for sample in self.checks.values()]
        return max(samples, key=lambda run: run.started) if samples else self.planned[-1][0]

    @property
    def environment(self) -> Environment:
        """Where it ran."""
        return Environment.of(self.cell, self.run)

    @property
    def reasons(self) -> dict[str, str]:
        """Why it did not run, by cause; empty where it ran."""
        skipped = [planned for _, planned in self.planned if planned.cause is not None]
        return {} if self.ran else {str(planned.cause): planned.reason for planned in skipped}


@dataclass
class Union:
    """All that some runs say.

    Attributes:
        runs: in the order of their start.
        cells: by target and id, in the order of the matrix.
        conflicts: checks that two samples contradict each other about; the worse one counts.
        notes: sentences on runs that did not end well.
    """

    runs: tuple[Run, ...]
    cells: dict[Key, CellView]
    conflicts: tuple[Conflict, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets, in order of appearance."""
        return tuple(dict.fromkeys(view.target for view in self.cells.values()))

    @property
    def never_ran(self) -> list[CellView]:
        """The cells that ran nowhere."""
        return [view for view in self.cells.values() if not view.ran]

    def passed(self, cell: Cell) -> bool:
        """Whether `cell` passed with every target that it ran with, and with one at least; for `[require]`."""
        views = [view for (_, name), view in self.cells.items() if name == base_id(cell.id)]
        ran = [view for view in views if view.ran]
        return bool(ran) and all(view.outcome == "passed" and view.cell.simulated == cell.simulated for view in ran)


def base_id(cell_id: str) -> str:
    """The id without the `.sim` of a simulated cell."""
    return cell_id.removesuffix(".sim")


def unite(files: Sequence[RunFile]) -> Union:
    """The runs in `files` as one matrix.

    Real beats simulated. Of runs in one environment the later one counts, and so does its commit. Where environments
    contradict each other, or one environment and commit says two things, the worse outcome counts and the conflict is
    listed.
    """
    ordered = sorted(files, key=lambda file: (file.run.started, file.run.run))
    samples: dict[Key, dict[str, list[Sample]]] = {}
    cells: dict[Key, CellView] = {}
    for file in ordered:
        for planned in file.planned.values():
            key = file.run.target, base_id(planned.cell)
            view = cells.setdefault(key, CellView(file.run.target, planned.axes))
            view.planned.append((file.run, planned))
        for check in file.checks:
            samples.setdefault((check.target, base_id(check.cell)), {}).setdefault(check.check, []).append(
                Sample(file.run, check)
            )
    _add_cells(cells, ordered)
    conflicts: list[Conflict] = []
    for key, view in cells.items():
        of_checks = samples.get(key, {})
        view.cell = _as_it_ran(view, of_checks.values())
        for name, found in of_checks.items():
            view.checks[name], conflict = _counting(view, name, found)
            conflicts += [conflict] if conflict else []
        view.done = [each for each in view.done if each[1].simulated == view.cell.simulated]
    notes = tuple(note for file in ordered for note in _notes(file))
    return Union(tuple(file.run for file in ordered), cells, tuple(conflicts), notes)


def _add_cells(cells: dict[Key, CellView], files: Iterable[RunFile]) -> None:
    for file in files:
        for record in file.cells.values():
            view = cells.get((record.target, base_id(record.cell))) or cells.get(
                (file.run.target, base_id(record.cell))
            )
            if view is not None:
                view.done.append((file.run, record))
        if file.end is None:
            for planned in file.planned.values():
                if planned.verdict != "skip" and planned.cell not in file.cells:
                    cells[file.run.target, base_id(planned.cell)].aborted.append(file.run)


def _as_it_ran(view: CellView, samples: Iterable[Sequence[Sample]]) -> Cell:
    """The real cell where it really ran, else the simulated one where that ran, else as it was planned last."""
    ran = [sample.check.simulated for of_one in samples for sample in of_one if sample.check.outcome != "skipped"]
    ran += [record.simulated for _, record in view.done if record.outcome != "skipped"]
    for simulated in (False, True):
        if simulated in ran:
            return next(each.axes for _, each in view.planned if each.simulated == simulated)
    return view.planned[-1][1].axes


def _counting(view: CellView, name: str, samples: Sequence[Sample]) -> tuple[Sample, Conflict | None]:
    """The sample that counts among all of one check, and what contradicts it."""
    kept = [each for each in samples if each.check.simulated == view.cell.simulated] or list(samples)
    # A machine that skipped it says nothing about it.
    kept = [each for each in kept if each.check.outcome != "skipped"] or kept[-1:]
    by_environment: dict[Environment, list[Sample]] = {}
    for each in kept:
        by_environment.setdefault(Environment.of(view.cell, each.run), []).append(each)
    latest: list[Sample] = []
    twofold = False
    for of_one in by_environment.values():
        commit = of_one[-1].run.commit
        same = [each for each in of_one if each.run.commit == commit and commit is not None and not commit.dirty]
        outcomes = {each.check.outcome for each in same}
        twofold = twofold or len(outcomes) > 1
        latest.append(min(same, key=_badness) if len(outcomes) > 1 else of_one[-1])
    latest.sort(key=lambda each: (_badness(each), each.run.started))
    differing = tuple(latest) if len({each.check.outcome for each in latest}) > 1 else ()
    if twofold:
        return latest[0], Conflict(view.id, name, tuple(kept), "one commit on one machine has two outcomes")
    if differing:
        return latest[0], Conflict(view.id, name, differing, "machines or versions differ")
    # All agree: the newest has the timings of today.
    return max(latest, key=lambda each: each.run.started), None


def _badness(sample: Sample) -> int:
    return WORST_FIRST.index(sample.check.outcome)


def _notes(file: RunFile) -> Iterable[str]:
    if file.cut:
        yield f"{file.path.name}: the last record was cut off when the run was killed; it is left out"
    if file.end is None:
        missing = sum(each.verdict != "skip" and each.cell not in file.cells for each in file.planned.values())
        yield f"{file.path.name}: the run did not come to its end; {missing} of its cells are not finished"
