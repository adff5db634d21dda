"""Groups what is wrong in results: findings of many checks and cells that say the same thing are one problem."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Final

from pytest_llmdevice.results.cell_view import CellView
from pytest_llmdevice.results.merged_results import MergedResults
from pytest_llmdevice.results.records import Check, RecordedFinding
from pytest_llmdevice.results.vocabulary import BAD, OUTCOME_WORDS, WORST_FIRST, Outcome
from pytest_llmdevice.text import listed, plural

EXAMPLES: Final = 3
"""Findings that are kept of each problem."""

WHOLE_CELL: Final = "the cell"
"""What stands for a check where a cell is bad and none of its checks is."""


@dataclass
class Problem:
    """One thing that is wrong, in one cell or in many.

    Attributes:
        outcome: the worst outcome of the checks that found it.
        message: what the first of them said.
        cells: the cells that have it, in the order of the matrix.
        checks: the names of the checks, in the order in which they found it.
        findings: how many findings say it; 0 where there are only messages.
        examples: the first `EXAMPLES` different findings; empty where there are only messages.
    """

    outcome: Outcome
    message: str
    cells: list[CellView] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    findings: int = 0
    examples: list[RecordedFinding] = field(default_factory=list)

    @property
    def finding(self) -> RecordedFinding | None:
        """The first finding; None where there are only messages."""
        return self.examples[0] if self.examples else None

    @property
    def title(self) -> str:
        """`"failed in 3 cells (1 simulated): dtypes, values"`."""
        return f"{self.place}: {self.found_by}"

    @property
    def place(self) -> str:
        """`"failed in 3 cells (1 simulated)"`."""
        count, simulated = len(self.cells), sum(view.cell.simulated for view in self.cells)
        cells = plural(count, "simulated cell" if simulated == count else "cell")
        some = f" ({simulated:,} simulated)" if 0 < simulated < count else ""
        return f"{OUTCOME_WORDS[self.outcome]} in {cells}{some}"

    @property
    def found_by(self) -> str:
        """The first checks, and how many others there are: `"dtypes, values, save, reload and 2 more"`."""
        return listed(self.checks, 4)

    @property
    def description(self) -> str:
        """`"lm_head.weight: expected bfloat16, found float32"`, or the message where there is no finding."""
        finding = self.finding
        if finding is None:
            return self.message
        return f"{finding.where}: expected {finding.expected}, found {finding.actual}"

    @property
    def name(self) -> str:
        """The known cause, or else the description: what tells it from other problems in a list."""
        return self.examples[0].hint if self.examples and self.examples[0].hint else self.description

    @property
    def first(self) -> CellView:
        """The first cell; a real one if there is one."""
        return min(self.cells, key=lambda view: view.cell.simulated)

    def add(self, view: CellView, check: str, outcome: Outcome, finding: RecordedFinding | None) -> None:
        """Take in that `check` found it in `view`."""
        self.outcome = min(self.outcome, outcome, key=WORST_FIRST.index)
        if not self.cells or self.cells[-1] is not view:
            self.cells.append(view)
        if check not in self.checks:
            self.checks.append(check)
        if finding is not None:
            self.findings += 1
            if len(self.examples) < EXAMPLES and finding not in self.examples:
                self.examples.append(finding)


def find_problems(results: MergedResults) -> list[Problem]:
    """Everything that makes `results` red, what concerns most cells first; among equals the worst."""
    problems: dict[Hashable, Problem] = {}
    for view in results.cells.values():
        if view.outcome not in BAD:
            continue
        for check, outcome, message, finding in _complaints(view):
            key = _cause(check, outcome, message, finding)
            problems.setdefault(key, Problem(outcome, message)).add(view, check, outcome, finding)
    return sorted(problems.values(), key=lambda problem: (-len(problem.cells), WORST_FIRST.index(problem.outcome)))


def _complaints(view: CellView) -> Iterator[tuple[str, Outcome, str, RecordedFinding | None]]:
    """(check, outcome, message, finding) of all that is bad in a cell."""
    bad: list[Check] = [sample.check for sample in view.checks.values() if sample.check.outcome in BAD]
    # What was not run because of another check of the cell says nothing that this one does not.
    bad = [check for check in bad if check.outcome != "aborted"] or bad
    for check in bad:
        # A check that found nothing and still is not good, because it looked at nothing, or passed unexpectedly.
        for finding in check.findings or (None,):
            yield check.check, check.outcome, check.message or OUTCOME_WORDS[check.outcome], finding
    if not bad and view.outcome == "aborted":
        yield WHOLE_CELL, "aborted", "its run, its worker or its device was gone before it was finished", None
    elif not bad:
        yield WHOLE_CELL, view.outcome, f"the whole cell is recorded as {OUTCOME_WORDS[view.outcome]}", None


def _cause(check: str, outcome: Outcome, message: str, finding: RecordedFinding | None) -> Hashable:
    """What findings of one problem have in common: the known cause; else all but numbers, addresses and paths."""
    # What keeps a check from being made, such as a load that fails, is one problem for all checks of a cell.
    asked = "" if outcome in {"error", "aborted"} else check
    if finding is None:
        return asked, outcome, _normalized(message)
    if finding.hint:
        return finding.hint
    where, expected, actual = (_normalized(text) for text in (finding.where, finding.expected, finding.actual))
    if finding.kind:
        # One exception that is raised in many places is one problem, and so is a load that gives no model.
        return expected, actual
    return asked, where, expected, actual


_NORMAL: Final = (
    (re.compile(r"0x[0-9a-fA-F]+"), "0x#"),
    (re.compile(r"(?<![\w:])(?:[~.]?/[\w.+~-]+){2,}"), "a path"),
    # Not within a word: `float16` and `int8` are no quantities.
    (re.compile(r"(?<![A-Za-z0-9_])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![A-Za-z_])"), "#"),
    (re.compile(r"\[[^\[\]]*\]|\{[\d,.#]*\}"), "#"),
)


def _normalized(text: str) -> str:
    for pattern, replacement in _NORMAL:
        text = pattern.sub(replacement, text[:2000])
    return text
