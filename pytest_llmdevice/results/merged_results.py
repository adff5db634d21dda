"""Merges many runs into one matrix: for each check of a cell the record that counts, and what contradicts it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, TypeAlias

from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.results.environments import Environment, Environments
from pytest_llmdevice.results.records import CellDone, Check, Planned, Run
from pytest_llmdevice.results.store import RunFile
from pytest_llmdevice.results.vocabulary import WORST_FIRST, Outcome

Key: TypeAlias = tuple[str, str]
"""(target, id of the cell without `.sim`): what two runs have in common that ask the same question."""

TWOFOLD: Final = "one commit on one machine has two outcomes"
"""Why of a conflict that no newer commit and no other machine explains: the check is not deterministic."""

DIFFERING: Final = "machines or versions differ"


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
        planned: what became of the cell on each machine, with the run.
        done: the records of the cell as it is in `cell`, with the run, the latest last; those of runs that skipped it
            only where all did.
        aborted: the runs that were gone before the cell was finished, and that no run of the same commit and no later
            one made good.
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
        """The worst of its checks; `skipped` where it never ran, `aborted` where a run was gone in the middle of it."""
        outcomes = {sample.check.outcome for sample in self.checks.values()}
        outcomes |= {record.outcome for _, record in self.done[-1:]} if not outcomes else set()
        if self.aborted:
            outcomes.add("aborted")
        return next((outcome for outcome in WORST_FIRST if outcome in outcomes), "skipped")

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
        if self.ran:
            return {}
        reasons = {str(planned.cause): planned.reason for _, planned in self.planned if planned.cause is not None}
        reasons |= {str(sample.check.cause): sample.check.message for sample in self.checks.values()}
        return reasons or {str(record.cause): "not requested: none of its tests was chosen" for _, record in self.done}


@dataclass
class MergedResults:
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

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """The targets, in order of appearance."""
        return tuple(dict.fromkeys(view.target for view in self.cells.values()))

    @property
    def never_ran(self) -> list[CellView]:
        """The cells that ran nowhere."""
        return [view for view in self.cells.values() if not view.ran]

    def passed(self, cell: Cell) -> bool:
        """Whether `cell` passed with every target that it ran with, and with one at least; for `[require]`."""
        ran = [view for view in self._by_id.get(base_id(cell.id), ()) if view.ran]
        return bool(ran) and all(view.outcome == "passed" and view.cell.simulated == cell.simulated for view in ran)

    @cached_property
    def _by_id(self) -> dict[str, list[CellView]]:
        views: dict[str, list[CellView]] = {}
        for (_, name), view in self.cells.items():
            views.setdefault(name, []).append(view)
        return views


def base_id(cell_id: str) -> str:
    """The id without the `.sim` of a simulated cell."""
    return cell_id.removesuffix(".sim")


def merge_runs(files: Sequence[RunFile]) -> MergedResults:
    """The runs in `files` as one matrix.

    Real beats simulated. Of runs in one environment the later one counts, and so does its commit. Where environments
    contradict each other, or one environment and commit says two things, the worse outcome counts and the conflict is
    listed.
    """
    ordered = sorted(files, key=lambda file: (file.run.started, file.run.run))
    samples: dict[Key, dict[str, list[Sample]]] = {}
    cells: dict[Key, CellView] = {}
    gone: dict[Key, list[tuple[Run, bool]]] = {}
    for file in ordered:
        targets = _targets(file)
        for planned in file.planned.values():
            base = base_id(planned.cell)
            for target in targets.get(planned.cell, (file.run.target,)):
                if (view := cells.get((target, base))) is None:
                    view = cells[target, base] = CellView(target, planned.axes)
                view.planned.append((file.run, planned))
                if _was_gone(file, planned):
                    gone.setdefault((target, base), []).append((file.run, planned.simulated))
        for check in file.checks:
            of_checks = samples.setdefault((check.target, base_id(check.cell)), {})
            of_checks.setdefault(check.check, []).append(Sample(file.run, check))
        for record in file.cells.values():
            cells[record.target, base_id(record.cell)].done.append((file.run, record))
    environments = Environments()
    conflicts: list[Conflict] = []
    for key, view in cells.items():
        _settle(view, samples.get(key, {}), gone.get(key, ()), environments, conflicts)
    notes = tuple(note for file in ordered for note in _notes(file))
    return MergedResults(tuple(file.run for file in ordered), cells, tuple(conflicts), notes)


def _targets(file: RunFile) -> dict[str, dict[str, None]]:
    """The targets that each cell ran with, which a project may choose test by test."""
    targets: dict[str, dict[str, None]] = {}
    for record in (*file.checks, *file.cells.values()):
        targets.setdefault(record.cell, {})[record.target] = None
    return targets


def _was_gone(file: RunFile, planned: Planned) -> bool:
    done = file.cells.get(planned.cell)
    if done is None:
        return file.end is None and planned.verdict != "skip"
    return done.outcome == "aborted"


def _settle(
    view: CellView,
    samples: dict[str, list[Sample]],
    gone: Iterable[tuple[Run, bool]],
    environments: Environments,
    conflicts: list[Conflict],
) -> None:
    """Fill `view` with what counts of all that was found of it, and `conflicts` with what contradicts it."""
    view.cell = _as_it_ran(view, samples.values(), gone)
    simulated = view.cell.simulated
    alike = [(run, record) for run, record in view.done if record.simulated == simulated]
    view.done = [(run, record) for run, record in alike if record.outcome != "skipped"] or alike
    view.aborted = [
        run for run, simulated_on in gone if simulated_on == simulated and not _made_good(view, run, environments)
    ]
    for name, of_check in samples.items():
        # What only a simulated device was asked says nothing about the real one.
        if kept := [sample for sample in of_check if sample.check.simulated == simulated]:
            view.checks[name], conflict = _counting(view, name, kept, environments)
            conflicts += [conflict] if conflict else []


def _as_it_ran(view: CellView, samples: Iterable[Sequence[Sample]], gone: Iterable[tuple[Run, bool]]) -> Cell:
    """The real cell where it really ran, else the simulated one where that ran, else as it was planned last."""
    ran = {sample.check.simulated for of_one in samples for sample in of_one if sample.check.outcome != "skipped"}
    ran |= {record.simulated for _, record in view.done if record.outcome != "skipped"}
    ran |= {simulated_on for _, simulated_on in gone}
    simulated = False if False in ran else True if True in ran else view.planned[-1][1].simulated
    return next(planned.axes for _, planned in view.planned if planned.simulated == simulated)


def _made_good(view: CellView, gone: Run, environments: Environments) -> bool:
    """Whether another run in the environment of `gone` finished the cell, later or of the same commit."""
    return any(
        record.outcome != "aborted"
        and (run.started > gone.started or _one_question(run, gone))
        and environments.of(view.cell, run) == environments.of(view.cell, gone)
        for run, record in view.done
    )


def _one_question(run: Run, other: Run) -> bool:
    """Whether the code was the same: one run, or one commit without changes."""
    return run.run == other.run or (run.commit == other.commit and run.commit is not None and not run.commit.dirty)


def _counting(
    view: CellView, name: str, samples: Sequence[Sample], environments: Environments
) -> tuple[Sample, Conflict | None]:
    """The sample that counts among all of one check, and what contradicts it."""
    # A machine that skipped it says nothing about it.
    kept = [sample for sample in samples if sample.check.outcome != "skipped"] or samples[-1:]
    if len(kept) == 1:
        return kept[0], None
    by_environment: dict[Environment, list[Sample]] = {}
    for sample in kept:
        by_environment.setdefault(environments.of(view.cell, sample.run), []).append(sample)
    latest: list[Sample] = []
    twofold: list[Sample] = []
    for of_environment in by_environment.values():
        same = [sample for sample in of_environment if _one_question(sample.run, of_environment[-1].run)]
        unsure = len({sample.check.outcome for sample in same}) > 1
        latest.append(min(same, key=_badness) if unsure else of_environment[-1])
        twofold += same if unsure else ()
    latest.sort(key=lambda sample: (_badness(sample), sample.run.started))
    if twofold:
        return latest[0], Conflict(view.id, name, tuple(sorted(twofold, key=_badness)), TWOFOLD)
    if len({sample.check.outcome for sample in latest}) > 1:
        return latest[0], Conflict(view.id, name, tuple(latest), DIFFERING)
    # All agree: the newest has the timings of today.
    return max(latest, key=lambda sample: sample.run.started), None


def _badness(sample: Sample) -> int:
    return WORST_FIRST.index(sample.check.outcome)


def _notes(file: RunFile) -> Iterable[str]:
    if file.cut:
        yield f"{file.path.name}: the last record was cut off when the run was killed; it is left out"
    if file.end is None:
        missing = sum(planned.verdict != "skip" and planned.cell not in file.cells for planned in file.planned.values())
        yield f"{file.path.name}: the run did not come to its end; {missing} of its cells are not finished"
