"""Computes once what all reports of some results say: counts, problems, what did not run, and the answer in a line.

The terminal, Markdown, the HTML page, the JSON document, the gate and the commands of `llmdevice` write this down, each
in its own form; none of them counts or groups anything itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from pytest_llmdevice.report.inapplicable import Inapplicable, group_inapplicable
from pytest_llmdevice.report.not_run import NotRun, group_not_run
from pytest_llmdevice.report.outcomes import MarkCounts
from pytest_llmdevice.report.partly_run import PartlyRun, group_partly_run
from pytest_llmdevice.report.problems import Problem, find_problems
from pytest_llmdevice.results.cell_view import CellView, Conflict
from pytest_llmdevice.results.merged_results import MergedResults
from pytest_llmdevice.results.transitions import Comparison
from pytest_llmdevice.results.vocabulary import BAD, GOOD, OUTCOME_WORDS, WORST_FIRST, CheckOutcome
from pytest_llmdevice.text import plural

UPSTREAM: Final = "Upstream: a plain load does so too"
"""Above what is no fault of the code under test."""

CONFLICTS: Final = "Conflicts: the worse outcome counts"
"""Above the checks that runs contradict each other about."""


@dataclass(frozen=True, slots=True)
class Headline:
    """The answer in a sentence.

    Attributes:
        state: `bad` where a cell has a problem, `simulated` where nothing but simulated hardware was used, `empty`
            where nothing ran, `partial` where no cell was put to all that its matrix requires, else `good`.
        sentence: the answer.
    """

    state: Literal["bad", "good", "simulated", "partial", "empty"]
    sentence: str


@dataclass
class ExcusedFailure:
    """Cells with a check that failed, and that is not held against the code under test, for one reason.

    Attributes:
        reason: why it is not.
        cells: the cells, in the order of the matrix.
    """

    reason: str
    cells: list[CellView] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{plural(len(self.cells), 'cell')}: {self.reason}"


@dataclass(frozen=True)
class ReportModel:
    """What there is to say about some results.

    Attributes:
        results: the results.
        comparison: the results held against a baseline; None where there is none.
        counts: how many cells have each outcome, real and simulated apart.
        problems: what is wrong, what concerns most cells first.
        expected_failures: what failed as expected, by reason.
        upstream: what a plain load does too, once for each architecture and check.
        partly_run: the cells that were not put to all that their matrix requires, by what is missing.
        inapplicable: the checks that are about what a model has not, by the reason.
        not_run: the cells that ran nowhere, by device and cause.
    """

    results: MergedResults
    comparison: Comparison | None
    counts: MarkCounts
    problems: tuple[Problem, ...]
    expected_failures: tuple[ExcusedFailure, ...]
    upstream: tuple[ExcusedFailure, ...]
    partly_run: tuple[PartlyRun, ...]
    inapplicable: tuple[Inapplicable, ...]
    not_run: tuple[NotRun, ...]

    @classmethod
    def of(cls, results: MergedResults, comparison: Comparison | None = None) -> ReportModel:
        """Build the model of `results`, and of what changed since a baseline where there is a comparison."""
        views = results.cells.values()
        return cls(
            results=results,
            comparison=comparison,
            counts=MarkCounts.of_cells(views),
            problems=tuple(find_problems(results)),
            expected_failures=tuple(_excused(views, "xfail")),
            upstream=tuple(_excused(views, "upstream")),
            partly_run=tuple(group_partly_run(views)),
            inapplicable=tuple(group_inapplicable(views)),
            not_run=tuple(group_not_run(results)),
        )

    @property
    def red(self) -> bool:
        """Whether a cell is not as it should be."""
        return self.counts.count(BAD) > 0

    @property
    def counts_line(self) -> str:
        """`"581 cells: 3 failed, 88 passed, 370 not run; simulated: 120 passed"`."""
        return f"{plural(self.counts.total, 'cell')}: {self.counts.words}"

    def problems_line(self, shown: int) -> str:
        """`"19 problems, the 5 of most cells"`, where `shown` of them are written down; `"2 problems"` if all are."""
        most = f", the {shown:,} of most cells" if shown < len(self.problems) else ""
        return f"{plural(len(self.problems), 'problem')}{most}"

    def cell_name(self, view: CellView) -> str:
        """The id of a cell, with its target where there are several: `"llama.cpu.fp32.none.to of mine:load"`."""
        return view.id if len(self.results.targets) == 1 else f"{view.id} of {view.target}"

    @property
    def headline(self) -> Headline:
        """The answer."""
        ran = self.counts.count(set(WORST_FIRST) - {"skipped"})
        bad = self.counts.count(BAD)
        if not ran:
            return Headline("empty", "No cell ran." if self.counts.total else "There are no cells.")
        if bad:
            verb = "has" if bad == 1 else "have"
            return Headline("bad", f"{bad:,} of {plural(ran, 'cell')} that ran {verb} problems.")
        if not self.counts.count(GOOD):
            verb = "was" if ran == 1 else "were"
            return Headline("partial", f"{plural(ran, 'cell')} {verb} partly run, none as its matrix requires.")
        partial = self.counts.count({"partial"})
        more = f"; {partial:,} partly run" if partial else ""
        if self.simulated == ran:
            whole = plural(ran - partial, "cell")
            return Headline("simulated", f"{whole} without a problem, none of them on real hardware{more}.")
        passed = self.counts.count({"passed"}, simulated=False)
        return Headline("good", f"{plural(passed, 'cell')} passed on real hardware, and nothing failed{more}.")

    @property
    def simulated(self) -> int:
        """How many cells ran on simulated hardware alone."""
        return self.counts.count(WORST_FIRST, simulated=True)


def conflict_text(conflict: Conflict) -> str:
    """A conflict on one line: `"llama.cpu.fp32.none.to dtypes: failed in run-2, passed in run-1: machines differ"`."""
    sides = dict.fromkeys(f"{OUTCOME_WORDS[side.check.outcome]} in {side.run.run}" for side in conflict.samples)
    return f"{conflict.cell} {conflict.check}: {', '.join(sides)}: {conflict.why}"


def _excused(views: Iterable[CellView], outcome: CheckOutcome) -> list[ExcusedFailure]:
    failures: dict[str, ExcusedFailure] = {}
    for view in views:
        for sample in view.checks.values():
            if sample.check.outcome == outcome:
                reason = sample.check.message or "no reason is given"
                failure = failures.setdefault(reason, ExcusedFailure(reason))
                if not failure.cells or failure.cells[-1] is not view:
                    failure.cells.append(view)
    return list(failures.values())
