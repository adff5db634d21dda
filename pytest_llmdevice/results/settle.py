"""Decides of all that several runs recorded of one cell what counts, and what contradicts it.

Real beats simulated. Within one environment the latest run that tried the cell counts, and with it the other runs of
the same commit; what is older says nothing about the code of today. A run that was gone in the middle of the cell
counts as the latest one does. Where environments contradict each other, or one environment and commit says two things,
the worse outcome counts and the conflict is listed. A machine that skipped a check says nothing about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.results.cell_view import CellView, Conflict, Sample, lacking
from pytest_llmdevice.results.environments import Environment, Environments
from pytest_llmdevice.results.records import CellDone, Check, Planned
from pytest_llmdevice.results.run_header import Run
from pytest_llmdevice.results.vocabulary import WORST_FIRST

TWOFOLD: Final = "one commit on one machine has two outcomes"
"""Why of a conflict that no newer commit and no other machine explains: the check is not deterministic."""

DIFFERING: Final = "machines or versions differ"

GONE: Final = "the run was gone before the check was finished"
"""The message of a check that a run did not live to see."""

WITH_LOADED: Final = 2
"""The schema from which on records say whether a cell was loaded."""


@dataclass
class Recorded:
    """What the runs have of one cell, the oldest first.

    Attributes:
        samples: the samples of each check.
        gone: the runs that were gone before the cell was finished, and whether it was simulated there.
    """

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    gone: list[tuple[Run, bool]] = field(default_factory=list)


def settle(view: CellView, recorded: Recorded, place: Mapping[str, int], environments: Environments) -> list[Conflict]:
    """Fill `view`, which has what was planned and done, with what counts; return what contradicts it.

    Args:
        view: the cell.
        recorded: all that the runs have of its checks.
        place: where each run is in the order of all runs, by its identifier.
        environments: works out where the cell ran.
    """
    view.cell = _as_it_ran(view, recorded)
    simulated = view.cell.simulated
    alike = [(run, record) for run, record in view.done if record.simulated == simulated]
    view.done = [(run, record) for run, record in alike if record.outcome != "skipped"] or alike
    # What only a simulated device was asked says nothing about the real one.
    samples = {
        name: kept
        for name, of_check in recorded.samples.items()
        if (kept := [sample for sample in of_check if sample.check.simulated == simulated])
    }
    gone = [run for run, on_simulated in recorded.gone if on_simulated == simulated]
    latest = _Latest.of(view, samples, gone, place, environments)
    view.aborted = [run for run in gone if not latest.made_good(run)]
    conflicts = []
    for name, of_check in samples.items():
        fresh = [sample for sample in of_check if latest.counts(sample.run)]
        fresh += [_aborted(view, name, run) for run in view.aborted if not latest.decided(run, fresh)]
        if fresh:
            view.checks[name], conflict = _counting(view, name, fresh, environments)
            conflicts += [conflict] if conflict else []
    _require(view, latest)
    return conflicts


@dataclass
class _Latest:
    """The latest run of a cell in each environment."""

    view: CellView
    place: Mapping[str, int]
    environments: Environments
    tried: dict[Environment, Run]

    @classmethod
    def of(
        cls,
        view: CellView,
        samples: Mapping[str, Sequence[Sample]],
        gone: Sequence[Run],
        place: Mapping[str, int],
        environments: Environments,
    ) -> _Latest:
        # A run that was not asked to, or has not the device, has not tried.
        runs = {
            sample.run.run: sample.run
            for of_check in samples.values()
            for sample in of_check
            if sample.check.cause not in {"not requested", "absent"}
        }
        runs |= {run.run: run for run in gone}
        # What cannot run any more on the same machine is an answer too.
        runs |= {
            run.run: run
            for run, planned in view.planned
            if planned.cause in {"unsupported", "unusable", "not offered"} and planned.simulated == view.cell.simulated
        }
        tried = {}
        for run in sorted(runs.values(), key=lambda run: place[run.run]):
            tried[environments.of(view.cell, run)] = run
        return cls(view, place, environments, tried)

    def counts(self, run: Run) -> bool:
        """Whether what `run` says is about the code that the latest run in its environment was about."""
        latest = self.tried.get(self._where(run))
        return latest is None or one_question(run, latest)

    def later(self, run: Run, other: Run) -> bool:
        """Whether `run` came behind `other`."""
        return self.place[run.run] > self.place[other.run]

    def made_good(self, gone: Run) -> bool:
        """Whether another run in the environment of `gone` finished the cell: later, or of the same commit in full."""
        return any(
            (self.later(run, gone) and record.outcome not in {"aborted", "skipped"})
            or (one_question(run, gone) and record.outcome not in {"aborted", "skipped", "partial"})
            for run, record in self.view.done
            if run.run != gone.run and self._where(run) == self._where(gone)
        )

    def decided(self, gone: Run, fresh: Sequence[Sample]) -> bool:
        """Whether a check ended that `gone` may not have come to: in it, behind it, or with the same code."""
        return any(
            (self.later(sample.run, gone) or one_question(sample.run, gone))
            for sample in fresh
            if self._where(sample.run) == self._where(gone)
        )

    def _where(self, run: Run) -> Environment:
        return self.environments.of(self.view.cell, run)


def _as_it_ran(view: CellView, recorded: Recorded) -> Cell:
    """The real cell where it really ran, else the simulated one where that ran, else as it was planned last."""
    ran = {
        sample.check.simulated
        for of_check in recorded.samples.values()
        for sample in of_check
        if sample.check.outcome != "skipped"
    }
    ran |= {record.simulated for _, record in view.done if record.outcome != "skipped"}
    ran |= {on_simulated for _, on_simulated in recorded.gone}
    simulated = False if False in ran else True if True in ran else view.planned[-1][1].simulated
    return next(planned.axes for _, planned in view.planned if planned.simulated == simulated)


def one_question(run: Run, other: Run) -> bool:
    """Whether the code was the same: one run, or one commit without changes."""
    return run.run == other.run or (run.commit == other.commit and run.commit is not None and not run.commit.dirty)


def _aborted(view: CellView, name: str, run: Run) -> Sample:
    """The check `name` as the one that `run` did not live to see."""
    return Sample(
        run,
        Check(
            cell=view.id,
            target=view.target,
            simulated=view.cell.simulated,
            check=name,
            outcome="aborted",
            message=GONE,
        ),
    )


def _counting(
    view: CellView, name: str, samples: Sequence[Sample], environments: Environments
) -> tuple[Sample, Conflict | None]:
    """The sample that counts among all of one check, and what contradicts it."""
    kept = [sample for sample in samples if sample.check.answered] or samples[-1:]
    if len(kept) == 1:
        return kept[0], None
    by_environment: dict[Environment, list[Sample]] = {}
    for sample in kept:
        by_environment.setdefault(environments.of(view.cell, sample.run), []).append(sample)
    latest: list[Sample] = []
    twofold: list[Sample] = []
    for of_environment in by_environment.values():
        unsure = len({sample.check.outcome for sample in of_environment}) > 1
        latest.append(min(of_environment, key=_badness) if unsure else of_environment[-1])
        twofold += of_environment if unsure else ()
    latest.sort(key=_badness)
    if twofold:
        return latest[0], Conflict(view.id, name, tuple(sorted(twofold, key=_badness)), TWOFOLD)
    if len({sample.check.outcome for sample in latest}) > 1:
        return latest[0], Conflict(view.id, name, tuple(latest), DIFFERING)
    # All agree: the newest has the timings of today.
    newest = {id(sample): number for number, sample in enumerate(kept)}
    return max(latest, key=lambda sample: newest[id(sample)]), None


def _badness(sample: Sample) -> int:
    return WORST_FIRST.index(sample.check.outcome)


def _require(view: CellView, latest: _Latest) -> None:
    """Say whether there was a model, and what the matrix requires of the cell that did not run."""
    if not latest.tried:
        return
    newest = max(latest.tried.values(), key=lambda run: latest.place[run.run])
    if newest.schema_version < WITH_LOADED:
        return
    planned: Planned = next(planned for run, planned in reversed(view.planned) if run.run == newest.run)
    view.exempt = planned.exempt
    ran = {name for name, sample in view.checks.items() if sample.check.answered}
    view.lacking = lacking(newest.required, planned.exempt, ran)
    done: list[tuple[Run, CellDone]] = [(run, record) for run, record in view.done if _counted(run, latest)]
    view.loaded = any(record.loaded or run.schema_version < WITH_LOADED for run, record in done)


def _counted(run: Run, latest: _Latest) -> bool:
    return latest.environments.of(latest.view.cell, run) in latest.tried and latest.counts(run)
