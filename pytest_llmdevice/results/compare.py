"""Compares results with a baseline: says of each of its entries whether it is as it was, better, worse or gone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from pytest_llmdevice.errors import ResultsError
from pytest_llmdevice.results.baseline import Baseline, CellLine, CheckLine
from pytest_llmdevice.results.cell_view import CellView, Sample, base_id
from pytest_llmdevice.results.environments import Environment, Environments
from pytest_llmdevice.results.measures import FEWEST_SAMPLES, RepeatedMeasures, other_tokens, outside, too_few
from pytest_llmdevice.results.merged_results import MergedResults
from pytest_llmdevice.results.records import Check
from pytest_llmdevice.results.shards import missing_shards, unlike_shards
from pytest_llmdevice.results.transition_rules import TRANSITIONS
from pytest_llmdevice.results.transitions import NAMES, OF_CAUSE, Comparison, Name, Transition
from pytest_llmdevice.results.vocabulary import BAD
from pytest_llmdevice.text import plural

SLOWER: Final = 20.0
"""Percent by which a time may be worse."""

LARGER: Final = 10.0
"""Percent by which memory may be more."""

ABSENT: Final = "absent"
"""What a check is that is not there."""


def compare(merged: MergedResults, baseline: Baseline, *, slower: float = SLOWER, larger: float = LARGER) -> Comparison:
    """Hold `merged` against `baseline`.

    Args:
        merged: the results.
        baseline: what they have to be like.
        slower: percent that a time may be worse; it must be outside of what repeated runs differ by, too.
        larger: percent that memory may be more, likewise.

    Raises:
        ResultsError: the baseline is one of another matrix.
    """
    refuse_other_matrix(merged, baseline)
    work = _Work(merged, baseline)
    changed = [transition for entry in baseline.checks.values() if (transition := work.entry(entry)) is not None]
    unchanged = len(baseline.checks) - len(changed)
    measured = [transition for line in baseline.cells.values() for transition in work.measures(line, slower, larger)]
    transitions = sorted((*changed, *measured, *work.new()), key=_rank)
    return Comparison(str(baseline.path), tuple(transitions), unchanged, tuple(work.notes()))


_ORDER: Final = {name: place for place, name in enumerate(NAMES)}


def _rank(transition: Transition) -> tuple[int, str, str, str, str]:
    """Sorts the worst names first."""
    names = transition.target, transition.cell, transition.check, transition.detail
    return _ORDER[transition.name], *names


def refuse_other_matrix(merged: MergedResults, baseline: Baseline) -> None:
    """Raise `ResultsError` where the baseline is of a matrix that no run of `merged` had."""
    there = {run.matrix.name for run in merged.runs}
    missing = [info.name for info in baseline.head.matrices if info.name not in there]
    if missing:
        raise ResultsError(
            f"{baseline.path}:1: a baseline of the matrix {' and '.join(missing)}, and these results are of "
            f"{' and '.join(sorted(there))}: give the baseline of those, or merge the results of the other matrix in"
        )


@dataclass
class _Work:
    merged: MergedResults
    baseline: Baseline
    environments: Environments = field(default_factory=Environments)
    otherwise: list[str] = field(default_factory=list)
    differences: dict[tuple[Environment, Environment], str] = field(default_factory=dict)

    def entry(self, entry: CheckLine) -> Transition | None:
        """What became of `entry`; None where it is as it was."""
        view = self.merged.cells.get((entry.target, base_id(entry.cell)))
        if view is None:
            known = entry.target in self.merged.targets
            missing = "the matrix has no such cell" if known else "no run is of this target"
            return _transition("unused", entry, ABSENT, missing)
        sample = view.checks.get(entry.check)
        if entry.cell != view.id:
            return self._on_other_hardware(entry, view, sample)
        if sample is None:
            return _gone(entry, view)
        now = sample.check
        if now.outcome == "skipped" and now.cause is not None:
            return _transition(OF_CAUSE[now.cause], entry, "skipped", now.message or now.cause)
        name = TRANSITIONS[entry.outcome][now.outcome]
        if now.undeclared and entry.outcome == "passed":
            name = "excused"
        if differing := self._difference(entry, view, sample):
            would = f"{name} otherwise" if name else "unchanged otherwise"
            return _transition("not-comparable", entry, now.outcome, f"{differing}; {would}", now)
        if name is None:
            if entry.failure != now.failure:
                self.otherwise.append(f"{entry.check} of {entry.cell} ({entry.failure} -> {now.failure})")
            return None
        return _transition(name, entry, now.outcome, _said(now), now)

    def _on_other_hardware(self, entry: CheckLine, view: CellView, sample: Sample | None) -> Transition:
        """What became of a real cell that ran only simulated now, or of a simulated one that ran really."""
        if not view.ran:
            return _not_run(entry, view)
        now = sample.check if sample else None
        outcome = now.outcome if now else ABSENT
        if view.cell.simulated:
            return _transition("absent", entry, f"{outcome}, simulated", _SIMULATED_ONLY, now)
        was = f"simulated on {self.baseline.environments[entry.environment].simulated_on or 'a simulated device'}"
        return _transition("not-comparable", entry, outcome, f"{was} -> {view.environment.hardware}", now)

    def _difference(self, entry: CheckLine, view: CellView, sample: Sample) -> str:
        before, after = self.baseline.environments[entry.environment], self.environments.of(view.cell, sample.run)
        if before is after:
            return ""
        words = self.differences.get((before, after))
        if words is None:
            words = self.differences[before, after] = ", ".join(before.differences(after))
        return words

    def measures(self, line: CellLine, slower: float, larger: float) -> Iterator[Transition]:
        """What is different in tokens, times and memory of a cell that ran where it ran for the baseline."""
        view = self.merged.cells.get((line.target, base_id(line.cell)))
        if view is None or view.id != line.cell or view.last is None or view.outcome in {"skipped", "aborted", "error"}:
            return
        if self.environments.of(view.cell, view.run) != self.baseline.environments[line.environment]:
            return
        now = RepeatedMeasures.of(view, self.environments)
        detail = other_tokens(line, now)
        # A check that failed may have ended before anything was generated, and says so itself.
        if detail and (now.tokens or view.outcome not in BAD):
            yield Transition("other-tokens", line.cell, "", line.target, "its tokens", "other tokens", detail)
        yield from outside(line, now, slower, larger)

    def new(self) -> Iterator[Transition]:
        """The checks that the baseline does not know, whether of the real or of the simulated cell."""
        known = {(target, base_id(cell), check) for target, cell, check in self.baseline.checks}
        cells = {(target, cell) for target, cell, _ in known}
        for key, view in self.merged.cells.items():
            for name, sample in view.checks.items():
                now = sample.check
                if (*key, name) not in known and now.outcome != "skipped":
                    failing = now.outcome in BAD
                    yield Transition("new", view.id, name, view.target, ABSENT, now.outcome, _said(now), failing)
            unsaid = all(sample.check.outcome != "aborted" for sample in view.checks.values())
            if view.aborted and unsaid and key not in cells:
                yield Transition("new", view.id, "", view.target, ABSENT, "aborted", _ABORTED, failing=True)

    def notes(self) -> Iterator[str]:
        """Sentences on what could not be compared."""
        if missing := missing_shards(self.merged.runs):
            yield f"these are parts of a run, without {', '.join(missing)}: merge the results of all shards, then gate"
        yield from unlike_shards(self.merged.runs)
        if self.otherwise:
            more = f" and {len(self.otherwise) - 1} more" if len(self.otherwise) > 1 else ""
            yield f"known failures that fail in another way now: {self.otherwise[0]}{more}"
        few = sum(map(too_few, self.baseline.cells.values()))
        if few:
            yield (
                f"the baseline has fewer than {FEWEST_SAMPLES} runs of {plural(few, 'cell')}, too few to tell slower "
                f"and larger: run {FEWEST_SAMPLES} times into one folder of results and update the baseline from it"
            )


_ABORTED: Final = "the run was gone before the cell was finished"
_SIMULATED_ONLY: Final = "it ran only simulated, which proves nothing about the hardware"
_EXEMPT: Final = "this run did not ask for what the check is about, such as simulated cards beside the cpu"
_VANISHED: Final = "the cell ran, and no test of this name: renamed, removed or left out"


def _gone(entry: CheckLine, view: CellView) -> Transition:
    """What became of an entry whose check left no record."""
    if view.aborted:
        return replace(_transition("aborted", entry, "aborted", _ABORTED), failing=entry.outcome not in BAD)
    if not view.ran:
        return _not_run(entry, view)
    if entry.check in view.exempt:
        return _transition("not-requested", entry, ABSENT, _EXEMPT)
    return _transition("vanished", entry, ABSENT, _VANISHED)


def _not_run(entry: CheckLine, view: CellView) -> Transition:
    return _transition(OF_CAUSE[view.nearest_cause], entry, "skipped", "; ".join(view.reasons.values()))


def _transition(name: Name, entry: CheckLine, after: str, detail: str, now: Check | None = None) -> Transition:
    failing = now is not None and now.outcome in BAD and entry.outcome not in BAD
    return Transition(name, entry.cell, entry.check, entry.target, entry.outcome, after, detail, failing)


def _said(check: Check) -> str:
    """What a check says of its outcome, on one line."""
    if check.outcome == "passed":
        return ""
    finding = check.findings[0] if check.findings else None
    text = f"{finding.where}: expected {finding.expected}, is {finding.actual}" if finding else check.message
    more = f" (and {len(check.findings) - 1} more)" if len(check.findings) > 1 else ""
    text = " ".join(text.split()) + more
    return f"{text} [{check.failure}]" if check.failure else text
