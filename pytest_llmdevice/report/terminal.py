"""Results in a terminal: the headline, the grid with its legend, what did not run, and the worst findings in full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_llmdevice.report.changes import changes
from pytest_llmdevice.report.changes import headline as compared
from pytest_llmdevice.report.drawing import NARROWEST, Drawing, Line
from pytest_llmdevice.report.folding import folded, without_attention
from pytest_llmdevice.report.grid import Grid, blank, grids
from pytest_llmdevice.report.marks import WORDS, legend
from pytest_llmdevice.report.problems import Problem, problems
from pytest_llmdevice.report.spec import DEFAULT, Spec, parse
from pytest_llmdevice.report.summary import environments, expected, headline, not_run, origin
from pytest_llmdevice.report.texts import ascii_only, is_address, printable
from pytest_llmdevice.report.wrapping import columns, paragraph
from pytest_llmdevice.results.merged_results import MergedResults
from pytest_llmdevice.results.transitions import Comparison
from pytest_llmdevice.text import listed, plural

MOST_BLOCKS: Final = 3
"""Blocks of columns below each other; a grid that needs more gives up an axis."""

MOST_LINES: Final = 12
"""Of what did not run, of conflicts and of notes."""


def lines(
    merged: MergedResults,
    *,
    width: int,
    colour: bool,
    unicode: bool,
    comparison: Comparison | None = None,
    grid: str | None = None,
    worst: int = 3,
    origins: bool = True,
) -> list[str]:
    """What a terminal shows of `merged`.

    Args:
        merged: the results.
        width: columns of the terminal. Only an address of the web is longer than a line.
        colour: whether lines have ANSI escapes.
        unicode: whether the terminal has more than ASCII.
        comparison: with a baseline.
        grid: what `--llm-grid` asks for.
        worst: of how many findings and transitions all is shown.
        origins: whether to say which runs these are, and on which machines.

    Raises:
        ConfigurationError: `grid` is no grid.
    """
    view = _View(merged, comparison, parse(grid) if grid else DEFAULT, max(width, NARROWEST), unicode, worst, origins)
    found = list(view.lines())
    if not unicode:
        found = [[(ascii_only(text), style) for text, style in line] for line in found]
    return _coloured(found) if colour else ["".join(text for text, _ in line).rstrip() for line in found]


def _coloured(found: Sequence[Line]) -> list[str]:
    """`found` with the escapes of the 16 colours, whatever the environment says of this process' own terminal."""
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
    for line in found:
        text = Text()
        for piece, style in line:
            text.append(piece, style or None)
        text.rstrip()
        console.print(text, soft_wrap=True)
    return file.getvalue().split("\n")[:-1]


@dataclass(frozen=True)
class _View:
    merged: MergedResults
    comparison: Comparison | None
    spec: Spec
    width: int
    unicode: bool
    worst: int
    origins: bool

    def lines(self) -> Iterator[Line]:
        yield from self._text(headline(self.merged), style="bold")
        if self.origins:
            yield from self._text(origin(self.merged))
            for line in environments(self.merged.runs):
                yield from self._text(printable(line), first="  ")
        drawn = [self._folded(each) for each in grids(self.merged, self.spec)]
        for each in drawn:
            yield []
            yield from self._grid(each)
        if drawn:
            yield []
            yield from self._legend(drawn)
        yield from self._section("Failed as expected", [printable(each) for each in expected(self.merged)])
        yield from self._section("Not run", [printable(str(each)) for each in not_run(self.merged)])
        if self.comparison is not None:
            yield from self._changes(self.comparison)
        yield from self._problems()
        yield from self._section(
            "Contradictions, of which the worse counts",
            [printable(f"{each.cell} {each.check}: {each.why}") for each in self.merged.conflicts],
        )
        yield from self._section("Notes", [printable(note) for note in self.merged.notes])

    def _text(self, text: str, first: str = "", style: str = "") -> Iterator[Line]:
        for line in paragraph(text, self.width, first):
            yield [(line, style)]

    def _section(self, title: str, texts: Sequence[str]) -> Iterator[Line]:
        if not texts:
            return
        yield []
        yield [(title, "bold")]
        for text in texts[:MOST_LINES]:
            yield from self._text(text, first="  ")
        if len(texts) > MOST_LINES:
            yield from self._text(f"and {len(texts) - MOST_LINES} more lines", first="  ")

    def _folded(self, grid: Grid) -> Grid:
        if self.spec.asked:
            return grid
        return folded(
            without_attention(grid),
            narrow=lambda each: len(self._drawing(each).blocks) == 1,
            bearable=lambda each: len(self._drawing(each).blocks) <= MOST_BLOCKS,
        )

    def _drawing(self, grid: Grid) -> Drawing:
        return Drawing(grid, self.width, "│" if self.unicode else "|")

    def _grid(self, grid: Grid) -> Iterator[Line]:
        target = f"target {printable(grid.target)}" if self.merged.targets != ("builtin",) else ""
        title = "; ".join(part for part in (target, grid.title) if part)
        if title:
            yield from self._text(title)
            yield []
        yield from self._drawing(grid).lines()

    def _legend(self, drawn: Sequence[Grid]) -> Iterator[Line]:
        rows = [""]
        for part in legend((entry for grid in drawn for entry in grid.entries), blank(self.merged, drawn)):
            if rows[-1] and columns(rows[-1]) + 3 + columns(part) > self.width:
                rows.append("")
            rows[-1] += f"   {part}" if rows[-1] else part
        for row in rows:
            yield from [[(row, "")]] if columns(row) <= self.width else self._text(row)

    def _changes(self, comparison: Comparison) -> Iterator[Line]:
        yield []
        yield from self._text(printable(compared(comparison)), style="bold")
        for change in changes(comparison, self.worst):
            yield from self._text(printable(change), first="  ")
        for note in comparison.notes[:MOST_LINES]:
            yield from self._text(printable(note), first="  ")

    def _problems(self) -> Iterator[Line]:
        found = problems(self.merged)
        if not found:
            return
        yield []
        shown = found[: self.worst]
        most = "" if len(shown) == len(found) else f", the {len(shown)} of most cells"
        yield from self._text(f"{plural(len(found), 'problem')}{most}", style="bold")
        for number, problem in enumerate(shown, start=1):
            yield from self._problem(number, problem)

    def _problem(self, number: int, problem: Problem) -> Iterator[Line]:
        checks = listed((printable(check, 120) for check in problem.checks), 4)
        title = f"{WORDS[problem.outcome]} in {problem.concerns}: {checks}"
        yield from self._text(title, first=f"{number}. ", style="bold red")
        finding = problem.finding
        said = [("cell", problem.first)]
        if finding is None:
            said += [("message", problem.message)]
        else:
            said += [("where", finding.where), ("expected", finding.expected), ("found", finding.actual)]
            said += [("hint", finding.advice or finding.hint), ("source", finding.source)]
            more = problem.findings - 1
            said += [("also", f"{plural(more, 'more finding')} of this kind")] if more else []
        for name, text in said:
            if name == "source" and is_address(text):
                # Whole, so that it can be followed.
                yield [(f"   {name:<9}{text}", "")]
            elif text:
                yield from self._text(printable(text), first=f"   {name:<9}")
