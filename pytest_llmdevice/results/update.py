"""Writes a baseline from results: refuses what would hide a problem, and keeps what did not run this time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

from pydantic import ValidationError

from pytest_llmdevice.errors import ConfigurationError, ResultsError
from pytest_llmdevice.matrix.suggest import unknown
from pytest_llmdevice.results.baseline import (
    Baseline,
    CellKey,
    CellLine,
    CheckKey,
    CheckLine,
    Head,
    read_baseline,
    write_baseline,
)
from pytest_llmdevice.results.cell_view import CellView, Sample, base_id
from pytest_llmdevice.results.compare import refuse_other_matrix
from pytest_llmdevice.results.environments import Environment, Environments, numbered
from pytest_llmdevice.results.measures import RepeatedMeasures
from pytest_llmdevice.results.merged_results import MergedResults
from pytest_llmdevice.results.settle import TWOFOLD
from pytest_llmdevice.results.vocabulary import BAD
from pytest_llmdevice.text import plural

FORCE_WORDS: Final[Mapping[str, str]] = {
    "ci": "the variable CI is set",
    "dirty": "the tree had changes that are not committed",
    "failing": "checks fail that the old baseline does not know as failing",
    "unstable": "outcomes or tokens of one commit differ from run to run",
    "vanished": "checks of the old baseline did not run in cells that did",
    "other-matrix": "the old baseline is of another matrix, and is not kept",
}
"""What an update refuses, and can be told to do all the same."""

Line = TypeVar("Line", CellLine, CheckLine)

_NOT_CI: Final = frozenset({"", "0", "false", "no", "off"})


def update(
    merged: MergedResults, path: Path, *, force: Iterable[str] = (), environment: Mapping[str, str], today: str = ""
) -> Baseline:
    """Write the baseline in `path` from `merged`, and return it.

    Cells that ran replace what the old baseline has of them. Cells that did not run here and targets
    that no run was of keep their entries; cells that the matrix has no more, or that the code under test does not offer
    any more, lose them. A simulated cell never
    takes the place of a real one.

    Args:
        merged: the results.
        path: the file; an old one must be readable.
        force: words of `FORCE_WORDS` for what is not to be refused.
        environment: the variables of the process, for `CI`.
        today: the date to write, ISO 8601; the current one when left out.

    Raises:
        ConfigurationError: an unknown word in `force`.
        ResultsError: a refusal, with what to do, one a line; or the old file cannot be read. Nothing was written.
    """
    words = frozenset(force)
    for word in sorted(words - set(FORCE_WORDS)):
        raise ConfigurationError(f"baseline update: {unknown('word to force', word, FORCE_WORDS)}")
    old = _old(path, merged, words)
    work = _Work(merged, old)
    refused = [line for word, line in work.refusals(environment) if word not in words]
    if refused:
        head = f"{path}: not updated: "
        raise ResultsError(head + (refused[0] if len(refused) == 1 else "\n  ".join(["", *refused])))
    try:
        baseline = work.made(path, today or datetime.now(UTC).date().isoformat())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ResultsError(
            f"{path}: not updated: the results were changed by hand: no baseline can have {where} {first['input']!r}"
        ) from None
    write_baseline(baseline)
    return baseline


def _old(path: Path, merged: MergedResults, words: frozenset[str]) -> Baseline | None:
    if not path.exists():
        return None
    old = read_baseline(path)
    try:
        refuse_other_matrix(merged, old)
    except ResultsError as error:
        if "other-matrix" in words:
            return None
        raise ResultsError(f"{error}; to write it anew, force 'other-matrix'") from None
    return old


@dataclass
class _Work:
    merged: MergedResults
    old: Baseline | None
    environments: Environments = field(default_factory=Environments)

    def __post_init__(self) -> None:
        real = {(target, cell) for target, cell in self._old_cells() if not cell.endswith(".sim")}
        self.views = [
            view
            for key, view in self.merged.cells.items()
            if any(map(_counts, view.checks.values())) and not (view.cell.simulated and key in real)
        ]
        self.ran = {(view.target, base_id(view.id)) for view in self.views}

    def _old_cells(self) -> dict[CellKey, CellLine]:
        return self.old.cells if self.old else {}

    def _old_checks(self) -> dict[CheckKey, CheckLine]:
        return self.old.checks if self.old else {}

    def refusals(self, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """(word, sentence) of each reason not to write it."""
        if environment.get("CI", "").strip().lower() not in _NOT_CI:
            yield "ci", "CI is set: update the baseline on a machine of yours and commit it, or force 'ci'"
        runs = {run.run for view in self.views for run, _ in view.done}
        runs |= {sample.run.run for view in self.views for sample in view.checks.values()}
        dirty = sum(run.run in runs and run.commit is not None and run.commit.dirty for run in self.merged.runs)
        if dirty:
            yield (
                "dirty",
                (f"{plural(dirty, 'run')} of a tree with changes: commit them and run again, or force 'dirty'"),
            )
        if not self.views:
            yield "", "no cell ran: run the matrix on a machine that has its devices"
        yield from self._failing()
        yield from self._unstable()
        gone = sorted(self._vanished())
        if gone:
            yield (
                "vanished",
                (
                    f"{plural(len(gone), 'check')} of the old baseline did not run, such as {gone[0][2]} of "
                    f"{gone[0][1]}: run all of them, or force 'vanished' to drop them"
                ),
            )

    def _failing(self) -> Iterator[tuple[str, str]]:
        known = {key for key, line in self._old_checks().items() if line.outcome in BAD}
        failures = [
            f"{name} of {view.id} ({sample.check.outcome})"
            for view in self.views
            for name, sample in view.checks.items()
            if sample.check.outcome in BAD and (view.target, view.id, name) not in known
        ]
        failures += [f"{view.id} (aborted)" for view in self.merged.cells.values() if view.aborted]
        if failures:
            yield (
                "failing",
                (
                    f"{plural(len(failures), 'check')} failed, such as {failures[0]}: fix or declare them with "
                    f"[[expect]], or force 'failing' to have them known as failing"
                ),
            )

    def _unstable(self) -> Iterator[tuple[str, str]]:
        unstable = [
            f"{conflict.check} of {conflict.cell}" for conflict in self.merged.conflicts if conflict.why == TWOFOLD
        ]
        unstable += [
            f"the tokens of {view.id}"
            for view in self.views
            if not RepeatedMeasures.of(view, self.environments).repeatable
        ]
        if unstable:
            yield (
                "unstable",
                (
                    f"one commit gave different results {plural(len(unstable), 'time')}, such as {unstable[0]}: make "
                    f"it deterministic, or force 'unstable' to take the worse outcome and the last tokens"
                ),
            )

    def _vanished(self) -> Iterator[CheckKey]:
        there = {(view.target, view.id): view for view in self.views}
        for target, cell, check in self._old_checks():
            view = there.get((target, cell))
            if self._withdrawn((target, cell)):
                yield target, cell, check
            if view is None or check in view.exempt:
                continue
            if check not in view.checks or not _counts(view.checks[check]):
                yield target, cell, check

    def made(self, path: Path, today: str) -> Baseline:
        """The new baseline."""
        kept = self._kept()
        where = self.old.environments if self.old else {}
        numbers = numbered(self._needed(kept), where)
        cells = {key: _pointing(line, numbers[where[line.environment]]) for key, line in kept.items()}
        checks = {
            key: _pointing(line, numbers[where[line.environment]])
            for key, line in self._old_checks().items()
            if key[:2] in kept
        }
        checks |= {key: _pointing(line, numbers[where[line.environment]]) for key, line in self._not_asked().items()}
        for view in self.views:
            cells[view.target, view.id] = _cell_line(view, self.environments, numbers)
            checks |= {
                (view.target, view.id, line.check): line for line in _check_lines(view, self.environments, numbers)
            }
        matrices = {run.matrix.name: run.matrix for run in self.merged.runs}
        head = Head(
            matrices=tuple(matrices[name] for name in sorted(matrices)),
            written=today,
            commit=self.merged.runs[-1].commit,
            environments=len(numbers),
            cells=len(cells),
            checks=len(checks),
        )
        known = {number: value for value, number in numbers.items()}
        return Baseline(path, head, known, cells, checks, tuple(self._notes(kept)))

    def _kept(self) -> dict[CellKey, CellLine]:
        """The cells of the old baseline that this one keeps."""
        return {key: line for key, line in self._old_cells().items() if self._keeps(key)}

    def _not_asked(self) -> dict[CheckKey, CheckLine]:
        """The entries of cells that ran whose checks this run did not ask for: they stay as they were."""
        exempt = {(view.target, view.id, name) for view in self.views for name in view.exempt}
        return {key: line for key, line in self._old_checks().items() if key in exempt}

    def _needed(self, kept: Mapping[CellKey, CellLine]) -> set[Environment]:
        environments: set[Environment] = set()
        if self.old:
            where = self.old.environments
            environments |= {where[line.environment] for line in kept.values()}
            environments |= {where[line.environment] for key, line in self.old.checks.items() if key[:2] in kept}
            environments |= {where[line.environment] for line in self._not_asked().values()}
        for view in self.views:
            environments.add(self.environments.of(view.cell, view.run))
            environments |= {
                self.environments.of(view.cell, sample.run) for sample in view.checks.values() if _counts(sample)
            }
        return environments

    def _keeps(self, key: CellKey) -> bool:
        target, cell = key
        if (target, base_id(cell)) in self.ran or self._withdrawn(key):
            return False
        return (target, base_id(cell)) in self.merged.cells or target not in self.merged.targets

    def _withdrawn(self, key: CellKey) -> bool:
        """Whether the code under test does not offer the cell any more."""
        view = self.merged.cells.get((key[0], base_id(key[1])))
        return view is not None and not view.ran and view.nearest_cause == "not offered"

    def _notes(self, kept: Mapping[CellKey, CellLine]) -> Iterator[str]:
        gone = [key for key in self._old_cells() if key not in kept and (key[0], base_id(key[1])) not in self.ran]
        if kept:
            yield f"kept as they were: {plural(len(kept), 'cell')} that did not run here"
        partly = sum(view.outcome == "partial" for view in self.views)
        if partly:
            yield f"partly run: {plural(partly, 'cell')}, whose other checks have no entry and are not gated"
        if gone:
            what = "the code under test does not offer" if self._withdrawn(gone[0]) else "the matrix does not have"
            yield f"dropped: {plural(len(gone), 'cell')} that {what}, such as {gone[0][1]}"


def _counts(sample: Sample) -> bool:
    return sample.check.outcome != "skipped"


def _cell_line(view: CellView, environments: Environments, numbers: Mapping[Environment, int]) -> CellLine:
    measures = RepeatedMeasures.of(view, environments)
    return CellLine(
        cell=view.id,
        target=view.target,
        environment=numbers[environments.of(view.cell, view.run)],
        tokens=measures.tokens,
        memory=dict(measures.memory),
        load_seconds=measures.times.get("load_seconds", ()),
        first_token_seconds=measures.times.get("first_token_seconds", ()),
        tokens_per_second=measures.times.get("tokens_per_second", ()),
        seconds=measures.times.get("seconds", ()),
    )


def _check_lines(view: CellView, environments: Environments, numbers: Mapping[Environment, int]) -> Iterator[CheckLine]:
    for name, sample in view.checks.items():
        check = sample.check
        if check.outcome != "skipped":
            yield CheckLine(
                cell=view.id,
                target=view.target,
                check=name,
                outcome=check.outcome,
                failure=check.failure,
                environment=numbers[environments.of(view.cell, sample.run)],
            )


def _pointing(line: Line, environment: int) -> Line:
    return line if line.environment == environment else line.model_copy(update={"environment": environment})
