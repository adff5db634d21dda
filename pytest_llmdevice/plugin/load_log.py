"""Keeps what a load printed, logged and warned of, and puts it into the report of every failed test of its cell.

A cell is loaded in the setup of its first test, which may pass: what pytest captured then is shown with no other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import pytest

from pytest_llmdevice.results.redaction import Redactor
from pytest_llmdevice.text import harmless, plural, without_progress

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from pytest_llmdevice.matrix.cell import Cell

SECTION: Final = "llm load log"
"""The name of the section of a report."""

MOST_LINES: Final = 30
"""Lines that are kept, the last ones: what is said last is nearest to what went wrong."""

LOOKED_AT: Final = 300
"""Lines of each kind that are compared with others, the last ones."""

LONGEST: Final = 400
"""Characters of a line."""

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
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

    @cached_property
    def told(self) -> str:
        """All of it, once `captured` is known."""
        captured = [(name.removeprefix("Captured ").rpartition(" ")[0], text) for name, text in self.captured]
        # Warnings are the shortest.
        return _text([self.warned, *captured])

    @property
    def warned(self) -> tuple[str, str]:
        """The warnings, as a part."""
        return "warnings", "\n".join(self.warnings)


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
        text = _text([log.warned]) if own else log.told
        if text:
            report.sections.append((SECTION, text))


def _text(parts: Iterable[tuple[str, str]]) -> str:
    said = [(kind, _lines_of(text)) for kind, text in parts]
    # A load may print without end, and each line is compared with those before it.
    left_out = sum(max(len(lines) - LOOKED_AT, 0) for _, lines in said)
    kept = list(_once((kind, line) for kind, lines in said for line in lines[-LOOKED_AT:]))
    left_out += max(len(kept) - MOST_LINES, 0)
    shown = [f"... {plural(left_out, 'line')} before"] if left_out else []
    redactor = Redactor.of()
    return harmless("\n".join(redactor.text(line) for line in [*shown, *kept[-MOST_LINES:]]), lines=True)


def _lines_of(text: str) -> list[str]:
    return [line for raw in without_progress(text) if (line := _COLOUR.sub("", raw).rstrip())]


def _once(lines: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Each line once, with its kind in front: most loggers write to stderr too."""
    seen: dict[str, None] = {}
    for kind, line in lines:
        if _is_known(line, seen):
            continue
        seen[line] = None
        yield f"{kind}: {line if len(line) <= LONGEST else f'{line[:LONGEST]}...'}"


def _is_known(line: str, seen: Collection[str]) -> bool:
    return line in seen or any(len(known) > _SAME and line.endswith(known) for known in seen)
