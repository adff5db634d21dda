"""Has pytest print at the end of a run what is needed: each problem once, and what follows from it not at all.

pytest's own sections show every failed test, and a wrong dtype fails a dozen of them in each cell. Only what is printed
changes: reports, counts, and what other plugins are handed stay as they are. `-v` prints everything.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_llmdevice.matrix.vocabulary import checks
from pytest_llmdevice.plugin.failures import findings_of
from pytest_llmdevice.report.problems import places_of
from pytest_llmdevice.results.cell_view import base_id
from pytest_llmdevice.text import harmless, plural, without_progress

if TYPE_CHECKING:
    from pytest_llmdevice.report.problems import Problem

LISTED: Final = 5
"""Cells of a problem that have a line in pytest's short summary."""

STATES: Final = ("failed", "error")
"""Under which pytest keeps the reports of what failed."""

AGAIN: Final = "run this cell again"
"""Above the command that does."""

FRAMES: Final = 2
"""Of a traceback that `--tb=short` leaves."""

Naming = Callable[[pytest.TestReport], tuple[str, str, str]]
"""The target, the id of the cell and the name of the check that a report is about."""


@dataclass
class Brief:
    """What pytest is to print of the reports of a run.

    Attributes:
        shown: by state, what the sections of failures and errors have.
        listed: by state, what the short summary has.
        left: how many failed tests it leaves out.
    """

    shown: dict[str, list[Any]] = field(default_factory=dict)
    listed: dict[str, list[Any]] = field(default_factory=dict)
    left: int = 0

    @property
    def rest(self) -> str:
        """`"and 40 more tests that failed for these reasons (-v shows all)"`; empty where nothing is left out."""
        return f"and {plural(self.left, 'more test')} that failed for these reasons (-v shows all)" if self.left else ""


def brief(stats: dict[str, list[Any]], problems: Sequence[Problem], naming: Naming) -> Brief:
    """Choose of the reports in `stats` those that tell all.

    Args:
        stats: pytest's reports, by state.
        problems: what is wrong.
        naming: says of a report what it is about; raises `LookupError` where it is about no cell.
    """
    places = places_of(problems)
    made = Brief()
    told: set[int] = set()
    listed: dict[int, set[str]] = {}
    held: dict[int, tuple[str, Any]] = {}
    for state in STATES:
        made.shown[state], made.listed[state] = [], []
        for report in stats.get(state, ()):
            number, root, cell, own = _place(report, places, naming)
            if number is None:
                made.shown[state].append(report)
                made.listed[state].append(report)
                continue
            if not root and not own:
                held.setdefault(number, (state, report))
                made.left += 1
                continue
            if own or number not in told:
                made.shown[state].append(report)
                told.add(number)
            cells = listed.setdefault(number, set())
            if own or (cell not in cells and len(cells) < LISTED):
                cells.add(cell)
                made.listed[state].append(report if own else _summed_up(report, problems[number]))
            else:
                made.left += 1
    for number, (state, report) in held.items():
        # Its cause has no report of its own: the run, or a plugin, has left it out.
        if number not in told:
            made.shown[state].append(report)
            made.listed[state].append(report)
            made.left -= 1
    return made


def _place(
    report: Any, places: dict[tuple[str, str, str], tuple[int, bool]], naming: Naming
) -> tuple[int | None, bool, str, bool]:
    """The problem of a report (None for none), whether it is the cause, its cell, and whether the test is one's own."""
    try:
        target, cell, check = naming(report)
    except LookupError:
        return None, True, "", True
    if report.when == "teardown":
        return None, True, cell, True
    number, root = places.get((target, base_id(cell), check), (None, True))
    return number, root, cell, of_ones_own(report, check)


def of_ones_own(report: Any, check: str) -> bool:
    """Whether the text of a report is that of a test of one's own, and not of a check or of a load that failed."""
    return check not in checks() and not any(finding.kind == "no model" for _, finding in findings_of(report))


class _Said:
    """Stands for what pytest knows of an exception, of which a line is printed."""

    def __init__(self, line: str, *, alone: bool = False) -> None:
        self.reprcrash = _Line(line)
        self._alone = alone

    def toterminal(self, writer: Any) -> None:
        """Print the line, where pytest does not print it by itself."""
        if self._alone:
            writer.line(str(self))

    def __str__(self) -> str:
        return str(self.reprcrash)


class _Line(SimpleNamespace):
    def __init__(self, line: str) -> None:
        super().__init__(message=line, path="", lineno=0)

    def __str__(self) -> str:
        return str(self.message)


def _summed_up(report: Any, problem: Problem) -> Any:
    """`report` with the problem in a line."""
    made = copy.copy(report)
    made.longrepr = _Said(harmless(" ".join(problem.description.split())))
    return made


def as_asked(report: Any, check: str, style: str, again: str) -> Any:
    """`report` as `--tb` asks for it, with the command that runs its cell again at its end."""
    made = copy.copy(report)
    text = str(report.longrepr)
    if of_ones_own(report, check):
        # pytest has made its text, and knows the style.
        made.sections = [*report.sections, *([] if style == "line" else [(AGAIN, again)])]
        return made
    if style == "line":
        made.sections = []
        # Of failures pytest prints the line that `reprcrash` is, of errors all that there is.
        made.longrepr = _Said(text.strip().partition("\n")[0], alone=report.when != "call")
        return made
    if style == "short":
        made.longrepr = "\n".join(_shortened(text.split("\n")))
    made.sections = [*_told(report.sections), (AGAIN, again)]
    return made


def _told(sections: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The sections that say something: not those that hold nothing but the progress of a bar."""
    for name, content in sections:
        kept = without_progress(content)
        if any(line.strip() for line in kept):
            yield name, "\n".join(kept)


def _shortened(lines: Sequence[str]) -> list[str]:
    """A message with the last frames of the traceback in it."""
    start = next((number for number, line in enumerate(lines) if line.startswith("Traceback (most recent call")), None)
    if start is None:
        return list(lines)
    frames = [number for number, line in enumerate(lines) if number > start and line.startswith('  File "')]
    marks = [line for line in lines[frames[-FRAMES] if len(frames) > FRAMES else start + 1 :] if line.strip(" ^~")]
    return [*lines[: start + 1], *marks]
