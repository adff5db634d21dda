"""Arranges the cells of a matrix as a grid of rows and columns: data, to be drawn in a terminal or as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final, TypeAlias

from pytest_llmdevice.report.not_run import why_not
from pytest_llmdevice.report.order import MATRIX_ORDER, in_order
from pytest_llmdevice.report.outcomes import Mark, MarkCounts
from pytest_llmdevice.report.spec import Spec, value
from pytest_llmdevice.results.cell_view import CellView
from pytest_llmdevice.results.merged_results import MergedResults
from pytest_llmdevice.text import joined

Heading: TypeAlias = tuple[tuple[str, ...], ...]
"""Of a row or a column: for each of its axes the values that it stands for."""

Lines: TypeAlias = dict[Heading, dict[Heading, MarkCounts]]
"""Rows by heading, each with its entries by the heading of the column; or columns by heading."""

ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class Grid:
    """Outcomes by row and column.

    Attributes:
        target: the code under test.
        row_axes, column_axes: the axes, the outermost first.
        rows: the rows in order, each with its entries; a place that no cell stands at has none.
        columns: the columns in order.
        common: axes on which all cells agree, or need not be distinguished: (axis, its only value or `ALL`).
        summarized: axes that were given up: at each place is the worst of all cells there.
    """

    target: str
    row_axes: tuple[str, ...]
    column_axes: tuple[str, ...]
    rows: Lines
    columns: tuple[Heading, ...]
    common: tuple[tuple[str, str], ...] = ()
    summarized: tuple[str, ...] = ()

    @property
    def transposed(self) -> Grid:
        """Rows as columns and columns as rows."""
        columns: Lines = {column: {} for column in self.columns}
        for row, entries in self.rows.items():
            for column, entry in entries.items():
                columns[column][row] = entry
        return replace(
            self, row_axes=self.column_axes, column_axes=self.row_axes, rows=columns, columns=tuple(self.rows)
        )

    @property
    def entries(self) -> list[MarkCounts]:
        """Those of all rows."""
        return [entry for entries in self.rows.values() for entry in entries.values()]

    @property
    def blank(self) -> bool:
        """Whether there is a place without a cell."""
        return any(len(entries) < len(self.columns) for entries in self.rows.values())

    @property
    def title(self) -> str:
        """What the headings leave out: `"in all: model llama; dtype and strategy make no difference"`."""
        same = ", ".join(f"{axis} {text}" for axis, text in sorted(self.common, key=_axis) if text != ALL)
        alike = [axis for axis, text in sorted(self.common, key=_axis) if text == ALL]
        parts = [f"in all: {same}"] if same else []
        parts += [f"{joined(alike)} {'makes' if len(alike) == 1 else 'make'} no difference"] if alike else []
        parts += [f"summed up over {joined(self.summarized)}: the worst is shown"] if self.summarized else []
        return "; ".join(parts)


def _axis(common: tuple[str, str]) -> int:
    return MATRIX_ORDER.index(common[0])


def grids(results: MergedResults, spec: Spec) -> list[Grid]:
    """A grid for each target, without the devices that ran nothing and the cells that nobody asked for.

    None for a target that ran nothing at all.
    """
    drawn = []
    for target in results.targets:
        views = [view for view in results.cells.values() if view.target == target]
        ran = {view.cell.spec for view in views if view.ran}
        shown = [view for view in views if view.cell.spec in ran and (view.ran or why_not(view)[0] != "not requested")]
        if shown:
            drawn.append(grid(shown, spec, target))
    return drawn


def blank(results: MergedResults, shown: Iterable[Grid]) -> str:
    """What an empty place of one of the grids means; empty where there is none."""
    if not any(grid.blank for grid in shown):
        return ""
    asked = all(why_not(view)[0] != "not requested" for view in results.never_ran)
    return "no such cell" if asked else "no such cell, or not requested"


def grid(views: Sequence[CellView], spec: Spec, target: str) -> Grid:
    """The grid of `views`, unfolded but for axes on which all agree."""
    points = [tuple(value(view.cell, axis) for axis in MATRIX_ORDER) for view in views]
    position = {axis: MATRIX_ORDER.index(axis) for axis in MATRIX_ORDER}
    ranks = {
        axis: {name: rank for rank, name in enumerate(in_order(points, position[axis]))}
        for axis in (*spec.rows, *spec.columns)
    }
    marks: dict[Heading, dict[Heading, list[tuple[Mark, int]]]] = {}
    for view, point in zip(views, points, strict=True):
        row, column = (tuple((point[position[axis]],) for axis in axes) for axes in (spec.rows, spec.columns))
        marks.setdefault(row, {}).setdefault(column, []).append((Mark.of(view), 1))

    def ordered(headings: Iterable[Heading], axes: tuple[str, ...]) -> list[Heading]:
        return sorted(
            headings,
            key=lambda heading: tuple(ranks[axis][values[0]] for axis, values in zip(axes, heading, strict=True)),
        )

    columns = tuple(ordered({column for entries in marks.values() for column in entries}, spec.columns))
    rows = {
        row: {column: MarkCounts.of(marks[row][column]) for column in columns if column in marks[row]}
        for row in ordered(marks, spec.rows)
    }
    different = [axis for axis in spec.summarized if len({point[position[axis]] for point in points}) > 1]
    made = Grid(target, spec.rows, spec.columns, rows, columns, (), tuple(different))
    same = tuple((axis, points[0][position[axis]]) for axis in spec.summarized if axis not in different)
    return settled(replace(made, common=tuple(pair for pair in same if pair != ("attention", "default"))))


def settled(grid: Grid) -> Grid:
    """Axes that do not tell rows or columns apart go into the title; the outermost of each side stays."""
    return _settled_rows(_settled_rows(grid).transposed).transposed


def _settled_rows(grid: Grid) -> Grid:
    axes, rows, common = grid.row_axes, grid.rows, dict(grid.common)
    for axis in reversed(grid.row_axes):
        if len(axes) == 1:
            break
        number = axes.index(axis)
        sets = {heading[number] for heading in rows}
        whole = all(len(values) == 1 and len(min(values)) > 1 for values in contexts(rows, number).values())
        if len(sets) > 1 and not whole:
            continue
        only = min(sets)
        if (axis, only) != ("attention", ("default",)):
            common[axis] = only[0] if len(only) == 1 else ALL
        axes = tuple(name for name in axes if name != axis)
        rows = {(*heading[:number], *heading[number + 1 :]): entries for heading, entries in rows.items()}
    return replace(grid, row_axes=axes, rows=rows, common=tuple(common.items()))


def contexts(headings: Iterable[Heading], number: int) -> dict[Heading, set[tuple[str, ...]]]:
    """The sets of values on the axis `number`, by what is outside of it: there they must be distinguished."""
    around: dict[Heading, set[tuple[str, ...]]] = {}
    for heading in headings:
        around.setdefault(heading[:number], set()).add(heading[number])
    return around


def label(values: tuple[str, ...], context: set[tuple[str, ...]]) -> str:
    """A set of values in words, among the sets of its context.

    A long list is `"all"` where there is no other set, and `"5 others"` where it is the longest of sets that have
    nothing in common; otherwise the list itself.
    """
    if len(values) == 1:
        return values[0]
    if len(context) == 1:
        return ALL if len(values) > 2 else "+".join(values)
    disjoint = sum(map(len, context)) == len({name for names in context for name in names})
    if len(values) > 2 and disjoint and values == max(context, key=lambda names: (len(names), names)):
        return f"{len(values)} others"
    return "+".join(values)


def labels(headings: Sequence[Heading]) -> list[tuple[str, ...]]:
    """Each heading in words, one for each axis."""
    if not headings:
        return []
    around = [contexts(headings, number) for number in range(len(headings[0]))]
    return [
        tuple(label(values, around[number][heading[:number]]) for number, values in enumerate(heading))
        for heading in headings
    ]


def spans(headings: Sequence[Heading], number: int) -> list[tuple[int, int]]:
    """(first, one after the last) of headings in a row that agree on the axis `number` and all outside of it."""
    ranges = []
    for _, group in groupby(enumerate(headings), key=lambda indexed: indexed[1][: number + 1]):
        indexes = [index for index, _ in group]
        ranges.append((indexes[0], indexes[-1] + 1))
    return ranges
