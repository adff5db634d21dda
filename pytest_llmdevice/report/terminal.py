"""Writes results for a terminal: the counts, the grid with its legend, what did not run, and the worst problems."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_llmdevice.report.changes import comparison_line, worst_changes
from pytest_llmdevice.report.drawing import NARROWEST, Drawing, Line
from pytest_llmdevice.report.folding import folded, without_attention
from pytest_llmdevice.report.grid import Grid, blank, grids
from pytest_llmdevice.report.inapplicable import TITLE as INAPPLICABLE
from pytest_llmdevice.report.model import CONFLICTS, UPSTREAM, ReportModel, conflict_text
from pytest_llmdevice.report.outcomes import legend
from pytest_llmdevice.report.problems import Problem
from pytest_llmdevice.report.runs import environment_lines, origin_text, target_text
from pytest_llmdevice.report.spec import DEFAULT, Spec, parse_grid
from pytest_llmdevice.report.texts import ascii_only, is_address, printable
from pytest_llmdevice.report.wrapping import columns, paragraph
from pytest_llmdevice.results.run_header import BUILTIN
from pytest_llmdevice.results.transitions import Comparison
from pytest_llmdevice.results.vocabulary import OUTCOME_WORDS
from pytest_llmdevice.text import harmless, plural

MOST_BLOCKS: Final = 3
"""Blocks of columns below each other; a grid that needs more gives up an axis."""

MOST_LINES: Final = 12
"""Of what did not run, of conflicts and of notes."""


def terminal_lines(
    report: ReportModel,
    *,
    width: int,
    colour: bool,
    unicode: bool,
    grid: str | None = None,
    worst: int = 3,
    origins: bool = True,
    again: Callable[[str], str] | None = None,
) -> list[str]:
    """What a terminal shows of `report`.

    Args:
        report: what there is to say.
        width: columns of the terminal. Only an address of the web is longer than a line.
        colour: whether lines have ANSI escapes.
        unicode: whether the terminal has more than ASCII.
        grid: what `--llm-grid` asks for.
        worst: how many problems and transitions are shown in full.
        origins: whether to say which runs these are, and on which machines.
        again: makes the command that runs a cell again, from its id; it stands on one line, to be copied.

    Raises:
        ConfigurationError: `grid` is no grid.
    """
    spec = parse_grid(grid) if grid else DEFAULT
    # Texts were made harmless one by one; where a long word was broken, a line may begin anywhere in it.
    drawn = _Terminal(report, spec, max(width, NARROWEST), unicode, worst, origins, again).lines()
    lines = [[(harmless(text), style) for text, style in line] for line in drawn]
    if not unicode:
        lines = [[(ascii_only(text), style) for text, style in line] for line in lines]
    return _coloured(lines) if colour else ["".join(text for text, _ in line).rstrip() for line in lines]


def _coloured(lines: Sequence[Line]) -> list[str]:
    """`lines` with the escapes of the 16 colours, whatever the environment says of this process' own terminal."""
    from io import StringIO

    from rich.console import Console
    from rich.text import Text

    file = StringIO()
    console = Console(
        file=file,
        force_terminal=True,
        color_system="standard",
        legacy_windows=False,
        highlight=False,
        _environ={},
    )
    for line in lines:
        text = Text()
        for piece, style in line:
            text.append(piece, style or None)
        text.rstrip()
        console.print(text, soft_wrap=True)
    return file.getvalue().split("\n")[:-1]


@dataclass(frozen=True)
class _Terminal:
    report: ReportModel
    spec: Spec
    width: int
    unicode: bool
    worst: int
    origins: bool
    again: Callable[[str], str] | None

    def lines(self) -> Iterator[Line]:
        report, results = self.report, self.report.results
        builtin = BUILTIN in results.targets
        if target := target_text(results):
            yield from self._text(printable(target), style="bold yellow" if builtin else "bold")
        yield from self._text(report.counts_line, style="bold")
        if self.origins:
            yield from self._text(printable(origin_text(results)))
            for line in environment_lines(results.runs):
                yield from self._text(printable(line), first="  ")
        drawn = [self._folded(grid) for grid in grids(results, self.spec)]
        for grid in drawn:
            yield []
            yield from self._grid(grid)
        if drawn:
            yield []
            yield from self._legend(drawn)
        yield from self._section(OUTCOME_WORDS["xfail"].capitalize(), list(map(str, report.expected_failures)))
        yield from self._section(UPSTREAM, list(map(str, report.upstream)))
        yield from self._section(OUTCOME_WORDS["partial"].capitalize(), list(map(str, report.partly_run)))
        yield from self._section(INAPPLICABLE, list(map(str, report.inapplicable)))
        yield from self._section(OUTCOME_WORDS["skipped"].capitalize(), list(map(str, report.not_run)))
        if report.comparison is not None:
            yield from self._changes(report.comparison)
        yield from self._problems()
        yield from self._section(CONFLICTS, list(map(conflict_text, results.conflicts)))
        yield from self._section("Notes", results.notes)

    def _text(self, text: str, first: str = "", style: str = "") -> Iterator[Line]:
        for line in paragraph(text, self.width, first):
            yield [(line, style)]

    def _section(self, title: str, texts: Sequence[str]) -> Iterator[Line]:
        if not texts:
            return
        yield []
        yield [(title, "bold")]
        for text in texts[:MOST_LINES]:
            yield from self._text(printable(text), first="  ")
        if len(texts) > MOST_LINES:
            yield from self._text(f"and {len(texts) - MOST_LINES} more lines", first="  ")

    def _folded(self, grid: Grid) -> Grid:
        if self.spec.asked:
            return grid
        return folded(
            without_attention(grid),
            narrow=lambda made: len(self._drawing(made).blocks) == 1,
            bearable=lambda made: len(self._drawing(made).blocks) <= MOST_BLOCKS,
        )

    def _drawing(self, grid: Grid) -> Drawing:
        return Drawing(grid, self.width, "│" if self.unicode else "|")

    def _grid(self, grid: Grid) -> Iterator[Line]:
        target = f"target {printable(grid.target)}" if len(self.report.results.targets) > 1 else ""
        title = "; ".join(part for part in (target, grid.title) if part)
        if title:
            yield from self._text(title)
            yield []
        yield from self._drawing(grid).lines()

    def _legend(self, drawn: Sequence[Grid]) -> Iterator[Line]:
        rows = [""]
        for part in legend((place for grid in drawn for place in grid.entries), blank(self.report.results, drawn)):
            if rows[-1] and columns(rows[-1]) + 3 + columns(part) > self.width:
                rows.append("")
            rows[-1] += f"   {part}" if rows[-1] else part
        for row in rows:
            yield from [[(row, "")]] if columns(row) <= self.width else self._text(row)

    def _changes(self, comparison: Comparison) -> Iterator[Line]:
        yield []
        yield from self._text(printable(comparison_line(comparison)), style="bold")
        for change in worst_changes(comparison, self.report.problems, self.worst):
            yield from self._text(printable(change), first="  ")
        for note in comparison.notes[:MOST_LINES]:
            yield from self._text(printable(note), first="  ")

    def _problems(self) -> Iterator[Line]:
        shown = self.report.problems[: self.worst]
        if self.report.problems:
            yield []
            yield from self._text(self.report.problems_line(len(shown)), style="bold")
        for number, problem in enumerate(shown, start=1):
            yield from self._problem(number, problem)

    def _problem(self, number: int, problem: Problem) -> Iterator[Line]:
        yield from self._text(printable(problem.title), first=f"{number}. ", style="bold red")
        finding = problem.finding
        parts = [("cell", self.report.cell_name(problem.first))]
        if finding is None:
            parts += [("message", problem.message)]
        else:
            parts += [("where", finding.where), ("expected", finding.expected), ("found", finding.actual)]
            more = problem.findings - 1
            parts += [("also", f"{plural(more, 'more finding')} of this kind")] if more else []
        if (advised := problem.advised) is not None:
            parts += [("hint", advised.advice or advised.hint), ("source", advised.source)]
        parts += [("follows", problem.followers)] if problem.follows else []
        for name, text in parts:
            if name == "source" and is_address(text):
                # Whole, so that it can be followed.
                yield [(f"   {name:<9}{text}", "")]
            elif text:
                yield from self._text(printable(text), first=f"   {name:<9}")
        if self.again is not None:
            yield [(f"   {'again':<9}{self.again(problem.first.id)}", "")]
