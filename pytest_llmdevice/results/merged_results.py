"""Merges many runs into one matrix: for each check of a cell the record that counts, and what contradicts it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.results.cell_view import CellView, Conflict, Key, Sample, base_id
from pytest_llmdevice.results.environments import Environments
from pytest_llmdevice.results.order import in_order
from pytest_llmdevice.results.records import Planned
from pytest_llmdevice.results.run_header import Run
from pytest_llmdevice.results.settle import Recorded, settle
from pytest_llmdevice.results.store import RunFile
from pytest_llmdevice.text import listed, plural


@dataclass
class MergedResults:
    """All that some runs say.

    Attributes:
        runs: the oldest first.
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
        """Whether `cell` passed with every target that it ran with, and with one at least; for `[require]`.

        What a plain load does not do either is nothing that a target could be required to do.
        """
        ran = [view for view in self._by_id.get(base_id(cell.id), ()) if view.ran]
        return bool(ran) and all(
            view.outcome in {"passed", "upstream"} and view.cell.simulated == cell.simulated for view in ran
        )

    @cached_property
    def _by_id(self) -> dict[str, list[CellView]]:
        views: dict[str, list[CellView]] = {}
        for (_, name), view in self.cells.items():
            views.setdefault(name, []).append(view)
        return views


def merge_runs(files: Sequence[RunFile]) -> MergedResults:
    """The runs in `files` as one matrix; `settle` says what counts of each cell."""
    ordered = in_order(files)
    cells: dict[Key, CellView] = {}
    recorded: dict[Key, Recorded] = {}
    for file in ordered:
        targets = _targets(file)
        for planned in file.planned.values():
            base = base_id(planned.cell)
            for target in targets.get(planned.cell, (file.run.target,)):
                if (view := cells.get((target, base))) is None:
                    view = cells[target, base] = CellView(target, planned.axes)
                    recorded[target, base] = Recorded()
                view.planned.append((file.run, planned))
                if _was_gone(file, planned):
                    recorded[target, base].gone.append((file.run, planned.simulated))
        for check in file.checks:
            of_checks = recorded[check.target, base_id(check.cell)].samples
            of_checks.setdefault(check.check, []).append(Sample(file.run, check))
        for record in file.cells.values():
            cells[record.target, base_id(record.cell)].done.append((file.run, record))
    environments = Environments()
    place = {file.run.run: number for number, file in enumerate(ordered)}
    conflicts = [
        conflict for key, view in cells.items() for conflict in settle(view, recorded[key], place, environments)
    ]
    notes = [note for file in ordered for note in _notes(file)]
    notes += _repeated(cells.values())
    return MergedResults(tuple(file.run for file in ordered), cells, tuple(conflicts), tuple(notes))


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


def _notes(file: RunFile) -> Iterable[str]:
    if file.cut:
        yield f"{file.path.name}: the last record was cut off when the run was killed; it is left out"
    if file.end is None:
        missing = sum(planned.verdict != "skip" and planned.cell not in file.cells for planned in file.planned.values())
        # Two workers may have been in two cells.
        within = [cell for cell in file.begun if cell not in file.cells]
        where = f"; it was in {listed(within)}" if within else ""
        yield f"{file.path.name}: the run did not come to its end; {missing} of its cells are not finished{where}"


def _repeated(views: Iterable[CellView]) -> Iterable[str]:
    """What has its outcome only since a plugin ran it again."""
    checks = [
        f"{name} of {view.id}"
        for view in views
        for name, sample in view.checks.items()
        if sample.check.reruns and sample.check.outcome == "passed"
    ]
    if checks:
        yield f"passed only when run again: {plural(len(checks), 'check')}, such as {checks[0]}"
