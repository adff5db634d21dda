"""What is wrong, each thing once: findings of many checks and cells that say the same are one problem."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from pytest_llmdevice.report.marks import WORDS
from pytest_llmdevice.results.merged_results import CellView, MergedResults
from pytest_llmdevice.results.records import Check, RecordedFinding
from pytest_llmdevice.results.vocabulary import BAD, WORST_FIRST, Outcome
from pytest_llmdevice.text import plural


@dataclass
class Problem:
    """One thing that is wrong in some cells.

    Attributes:
        outcome: the worst outcome of the checks that found it.
        message: what the first of them said.
        finding: the first finding; None where there is only the message.
        cells: the ids of the cells in the order of the matrix, and whether each is simulated.
        checks: the checks, in the order in which they found it.
        findings: how many findings say it.
    """

    outcome: Outcome
    message: str
    finding: RecordedFinding | None
    cells: dict[str, bool] = field(default_factory=dict)
    checks: dict[str, None] = field(default_factory=dict)
    findings: int = 0

    @property
    def concerns(self) -> str:
        """`"3 cells (1 simulated)"`."""
        count, simulated = len(self.cells), sum(self.cells.values())
        if simulated == count:
            return plural(count, "simulated cell")
        return plural(count, "cell") + (f" ({simulated} simulated)" if simulated else "")

    @property
    def first(self) -> str:
        """The id of the first cell; a real one if there is one."""
        return min(self.cells, key=lambda cell: self.cells[cell])


def problems(merged: MergedResults) -> list[Problem]:
    """Everything that makes `merged` red, what concerns most cells first; among equals the worst."""
    found: dict[object, Problem] = {}
    for view in merged.cells.values():
        if view.outcome not in BAD:
            continue
        for check, outcome, message, finding in _said(view):
            problem = found.setdefault(_key(check, outcome, message, finding), Problem(outcome, message, finding))
            problem.outcome = min(problem.outcome, outcome, key=WORST_FIRST.index)
            problem.cells[view.id] = view.cell.simulated
            problem.checks[check] = None
            problem.findings += 1
    return sorted(found.values(), key=lambda each: (-len(each.cells), WORST_FIRST.index(each.outcome)))


def _said(view: CellView) -> Iterator[tuple[str, Outcome, str, RecordedFinding | None]]:
    """(check, outcome, message, finding) of all that is bad in a cell."""
    bad: list[Check] = [sample.check for sample in view.checks.values() if sample.check.outcome in BAD]
    # What was not run because of another check of the cell says nothing that this one does not.
    bad = [check for check in bad if check.outcome != "aborted"] or bad
    for check in bad:
        # A check that found nothing and still is not good, because it looked at nothing, or passed unexpectedly.
        for finding in check.findings or (None,):
            yield check.check, check.outcome, check.message or WORDS[check.outcome], finding
    if not bad and view.outcome == "aborted":
        yield "the cell", "aborted", "its run, its worker or its device was gone before it was finished", None
    elif not bad:
        yield "the cell", view.outcome, f"the whole cell is recorded as {WORDS[view.outcome]}", None


_NORMAL: Final = (
    (re.compile(r"0x[0-9a-fA-F]+"), "0x#"),
    (re.compile(r"(?<![\w:])(?:[~.]?/[\w.+~-]+){2,}"), "a path"),
    # Not within a word: `float16` and `int8` are no quantities.
    (re.compile(r"(?<![A-Za-z0-9_])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![A-Za-z_])"), "#"),
    (re.compile(r"\[[^\[\]]*\]|\{[\d,.#]*\}"), "#"),
)


def _key(check: str, outcome: Outcome, message: str, finding: RecordedFinding | None) -> object:
    """What two findings of one cause have in common: the hint; else all but numbers, addresses and paths."""
    if finding is None:
        return check, outcome, _normalized(message)
    if finding.hint:
        return finding.hint
    where, expected, actual = (_normalized(text) for text in (finding.where, finding.expected, finding.actual))
    # One exception that is raised in many places is one problem.
    return (expected, actual) if expected in {"no exception", "a model"} else (check, where, expected, actual)


def _normalized(text: str) -> str:
    for pattern, replacement in _NORMAL:
        text = pattern.sub(replacement, text[:2000])
    return text
