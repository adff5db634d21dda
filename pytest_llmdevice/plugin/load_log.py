"""Keeps what a load printed, logged and warned of, and puts it into the report of every failed test of its cell.

A cell is loaded in the setup of its first test, which may pass: what pytest captured then is shown with no other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest

from pytest_llmdevice.results.redaction import Redactor
from pytest_llmdevice.text import harmless, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_llmdevice.matrix.cell import Cell

SECTION: Final = "llm load log"
"""The name of the section of a report."""

MOST_LINES: Final = 30
"""Lines that are kept, the last ones: what is said last is nearest to what went wrong."""

LONGEST: Final = 400
"""Characters of a line."""

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_PROGRESS: Final = re.compile(r"\d+%\|.*\|")
_SAME: Final = 8
"""Characters of a line that another one has to end with to be the same, with the name of a logger in front."""


@dataclass
class LoadLog:
    """What one load said.

    Attributes:
        warnings: the warnings that it gave, with their classes.
        nodeid: the test in which it happened; empty before that test's first report.
        captured: (name, text) of what pytest captured in that phase of the test.
    """

    warnings: list[str] = field(default_factory=list)
    nodeid: str = ""
    captured: list[tuple[str, str]] = field(default_factory=list)


LOGS: Final[pytest.StashKey[dict[Cell, LoadLog]]] = pytest.StashKey()
"""The log of each cell's load, in the process that runs the cell."""


def keep(config: pytest.Config, cell: Cell, warnings: list[str]) -> None:
    """Remember that `cell` was loaded just now, with these warnings."""
    config.stash.setdefault(LOGS, {})[cell] = LoadLog(list(dict.fromkeys(warnings)))


def attach_log(item: pytest.Item, cell: Cell, report: pytest.TestReport) -> None:
    """Take what was captured during the load, or put it into the report of a test that failed.

    The test in which the cell was loaded has pytest's own sections, and needs the warnings only. A test that has no
    model to run on says so in a line, and the first one of its cell says the rest.
    """
    log = item.config.stash.get(LOGS, {}).get(cell)
    if log is None:
        return
    if not log.nodeid:
        log.nodeid = item.nodeid
        log.captured = [(name, text) for name, text in report.sections if name.endswith(f" {report.when}")]
    own = item.nodeid == log.nodeid
    if report.failed and (own or report.when == "call"):
        text = _text([("warnings", "\n".join(log.warnings))] if own else _parts(log))
        if text:
            report.sections.append((SECTION, text))


def _parts(log: LoadLog) -> list[tuple[str, str]]:
    """(what it is, text), warnings first: they are the shortest."""
    captured = [(name.removeprefix("Captured ").rpartition(" ")[0], text) for name, text in log.captured]
    return [("warnings", "\n".join(log.warnings)), *captured]


def _text(parts: Iterable[tuple[str, str]]) -> str:
    lines = list(_lines(parts))
    left_out = len(lines) - MOST_LINES
    if left_out > 0:
        lines = [f"... {plural(left_out, 'line')} before", *lines[left_out:]]
    redactor = Redactor.of()
    return harmless("\n".join(redactor.text(line) for line in lines), lines=True)


def _lines(parts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Each line once, with its kind in front, without progress bars: most loggers write to stderr too."""
    seen: dict[str, None] = {}
    for kind, text in parts:
        for raw in text.splitlines():
            # What a carriage return has covered was not to stay.
            line = _COLOUR.sub("", raw.rstrip("\r").rpartition("\r")[2]).rstrip()
            if not line or _PROGRESS.search(line) or _is_known(line, seen):
                continue
            seen[line] = None
            yield f"{kind}: {line if len(line) <= LONGEST else f'{line[:LONGEST]}...'}"


def _is_known(line: str, seen: Iterable[str]) -> bool:
    return any(line == known or (len(known) > _SAME and line.endswith(known)) for known in seen)
