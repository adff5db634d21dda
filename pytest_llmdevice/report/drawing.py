"""Draws a grid as lines of text: headings over several lines, in as many blocks of columns as the width asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

from pytest_llmdevice.report.grid import Grid, labels, spans
from pytest_llmdevice.report.outcomes import MarkCounts
from pytest_llmdevice.report.wrapping import broken, columns, filled, longest

Line: TypeAlias = list[tuple[str, str]]
"""Pieces of a line: (text, style of rich)."""

NARROWEST: Final = 24
"""A line has at least so many columns of the terminal: a narrower terminal breaks lines itself."""

_HEADING: Final = "bold"


@dataclass(frozen=True)
class Drawing:
    """A grid to be drawn.

    Attributes:
        grid: the grid.
        width: columns of the terminal.
        bar: what stands between devices.
    """

    grid: Grid
    width: int
    bar: str = "|"

    @cached_property
    def blocks(self) -> list[tuple[int, int]]:
        """(first, one after the last) of the columns that are drawn beside each other."""
        ranges: list[tuple[int, int]] = []
        first = 0
        while first < len(self.grid.columns):
            last = self._end(first)
            ranges.append((first, last))
            first = last
        return ranges

    def lines(self) -> Iterator[Line]:
        """All blocks, with an empty line between them."""
        for number, (first, last) in enumerate(self.blocks):
            if number:
                yield []
            widths = self._widths(first, last)
            yield from self._headings(first, last, widths)
            yield from self._rows(first, last, widths)

    def _end(self, first: int) -> int:
        last = first + 1
        while last < len(self.grid.columns) and self._total(first, last + 1) <= self._room:
            last += 1
        starts = [*self._starts, len(self.grid.columns)]
        if last in starts:
            return last
        torn = max(start for start in starts if start <= last)
        end = min(start for start in starts if start > last)
        # A device that would be torn apart begins the next block, if that is of any use.
        return torn if torn > first and self._total(torn, end) <= self._room else last

    @cached_property
    def _starts(self) -> list[int]:
        return [start for start, _ in spans(self.grid.columns, 0)]

    @cached_property
    def _barred(self) -> set[int]:
        """The columns that have a bar before them: they begin a device, and devices have several columns."""
        return set(self._starts) if len(self.grid.column_axes) > 1 else set()

    @cached_property
    def _column_labels(self) -> list[tuple[str, ...]]:
        return labels(self.grid.columns)

    @cached_property
    def _row_labels(self) -> list[tuple[str, ...]]:
        return labels(list(self.grid.rows))

    @cached_property
    def _entry_widths(self) -> list[int]:
        entries = self.grid.rows.values()
        return [
            max((len(line[column].letters) for line in entries if column in line), default=1)
            for column in self.grid.columns
        ]

    @cached_property
    def _label_widths(self) -> list[int]:
        """Of the columns of row labels: half of the width if possible, two thirds of it at most."""
        texts = [self.grid.row_axes, *self._row_labels]
        axes = range(len(self.grid.row_axes))
        wanted = [max(columns(text[number]) for text in texts) for number in axes]
        least = [max(longest(text[number]) for text in texts) for number in axes]
        width = max(self.width, NARROWEST)
        for most, floor in ((width // 2, least), (width * 2 // 3, [4] * len(wanted))):
            while sum(wanted) + 2 * len(wanted) > most:
                wide = [number for number in axes if wanted[number] > floor[number]]
                if not wide:
                    break
                wanted[max(wide, key=lambda number: wanted[number])] -= 1
        return wanted

    @property
    def _room(self) -> int:
        return max(self.width, NARROWEST) - sum(self._label_widths) - 2 * len(self._label_widths)

    def _total(self, first: int, last: int) -> int:
        bars = sum(first < start < last for start in self._barred)
        return sum(self._widths(first, last)) + (last - first - 1) + (1 + len(self.bar)) * bars

    def _widths(self, first: int, last: int) -> list[int]:
        """Of the columns from `first` to `last`, so that the headings over several of them fit too."""
        widths = [
            max(self._entry_widths[place], longest(self._column_labels[place][-1])) for place in range(first, last)
        ]
        for number in range(len(self.grid.column_axes) - 1):
            for start, end in spans(self.grid.columns[first:last], number):
                missing = longest(self._column_labels[first + start][number]) - _across(widths, start, end)
                widths[end - 1] += max(0, missing)
        return widths

    def _headings(self, first: int, last: int, widths: list[int]) -> Iterator[Line]:
        for number in range(len(self.grid.column_axes)):
            over = spans(self.grid.columns[first:last], number)
            texts = [
                broken(self._column_labels[first + start][number], _across(widths, start, end)) for start, end in over
            ]
            height = max(map(len, texts))
            for line in range(height):
                pieces: Line = [(self._corner(number, line == height - 1), _HEADING)]
                for (start, end), text in zip(over, texts, strict=True):
                    pieces.append((self._before(first, start), ""))
                    shown = text[line] if line < len(text) else ""
                    pieces.append((filled(shown, _across(widths, start, end)), _HEADING))
                yield pieces

    def _corner(self, number: int, lowest: bool) -> str:
        """The names of the row axes, beside the last line of headings."""
        show = lowest and number == len(self.grid.column_axes) - 1
        names = [name if show else "" for name in self.grid.row_axes]
        return "".join(
            filled(name[:width], width) + "  " for name, width in zip(names, self._label_widths, strict=True)
        )

    def _before(self, first: int, start: int) -> str:
        """What stands before a column, the one number `start` of its block."""
        if start == 0:
            return ""
        return f" {self.bar} " if first + start in self._barred else " "

    def _rows(self, first: int, last: int, widths: list[int]) -> Iterator[Line]:
        above: tuple[str, ...] = ()
        shown = self.grid.columns[first:last]
        for texts, entries in zip(self._row_labels, self.grid.rows.values(), strict=True):
            placed = [entries.get(column) for column in shown]
            if not any(placed):
                # Another block has it.
                continue
            new = next((number for number, pair in enumerate(zip(texts, above, strict=False)) if pair[0] != pair[1]), 0)
            yield from self._row(
                ["" if number < new else text for number, text in enumerate(texts)], placed, first, widths
            )
            above = texts

    def _row(
        self, texts: Sequence[str], entries: Sequence[MarkCounts | None], first: int, widths: Sequence[int]
    ) -> Iterator[Line]:
        labelled = [broken(text, width) for text, width in zip(texts, self._label_widths, strict=True)]
        for number in range(max(map(len, labelled))):
            pieces: Line = [
                (filled(label[number] if number < len(label) else "", width) + "  ", "")
                for label, width in zip(labelled, self._label_widths, strict=True)
            ]
            for place, (entry, width) in enumerate(zip(entries, widths, strict=True)):
                shown = entry if number == 0 else None
                pieces.append((self._before(first, place), ""))
                pieces.append((filled(shown.letters, width), shown.worst.style) if shown else (" " * width, ""))
            yield pieces


def _across(widths: list[int], start: int, end: int) -> int:
    """The width of several columns with what is between them; bars stand only between outermost spans."""
    return sum(widths[start:end]) + (end - start - 1)
