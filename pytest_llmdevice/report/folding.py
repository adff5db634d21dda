"""Folds a large grid: rows and columns that say the same become one, and at last an axis is summarized."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias

from pytest_llmdevice.report.grid import Grid, Heading, Lines, settled
from pytest_llmdevice.report.outcomes import MarkCounts

FEW_ROWS: Final = 40
"""Rows that are read at a glance; a grid with more is folded."""

MANY_ROWS: Final = 60
"""Rows that are read at all."""

Line: TypeAlias = dict[Heading, MarkCounts]
Enough: TypeAlias = Callable[[Grid], bool]


def folded(grid: Grid, *, narrow: Enough, bearable: Enough) -> Grid:
    """`grid` with fewer rows and columns, folded no further than is needed.

    Args:
        grid: as it is.
        narrow: whether its columns are few enough to be read at a glance.
        bearable: whether they are few enough to be read at all; otherwise the grid says less exactly what went wrong.
    """
    down = _folded_rows(grid, lambda made: len(made.rows) <= FEW_ROWS, lambda made: len(made.rows) <= MANY_ROWS)
    across = _folded_rows(down.transposed, lambda made: narrow(made.transposed), lambda made: bearable(made.transposed))
    return settled(across.transposed)


def without_attention(grid: Grid) -> Grid:
    """`grid` without its axis of attentions where these make no difference."""
    for side in (grid, grid.transposed):
        if "attention" in side.row_axes[1:]:
            number = side.row_axes.index("attention")
            rows = merged(side.rows, number, _same_news)
            if len({heading[:number] for heading in rows}) == len(rows):
                made = settled(replace(side, rows=rows))
                return made if side is grid else made.transposed
    return grid


def _folded_rows(grid: Grid, few: Enough, bearable: Enough) -> Grid:
    for agree, enough in ((_same_news, few), (_no_contradiction, bearable)):
        for number in reversed(range(len(grid.row_axes))):
            if enough(settled(grid)):
                return settled(grid)
            grid = replace(grid, rows=merged(grid.rows, number, agree))
        if bearable(settled(grid)):
            return settled(grid)
    while not bearable(settled(grid)) and len(grid.row_axes) > 1:
        given_up = (*grid.summarized, grid.row_axes[-1])
        grid = replace(grid, row_axes=grid.row_axes[:-1], rows=summarized(grid.rows), summarized=given_up)
    return settled(grid)


def merged(lines: Lines, number: int, agree: Callable[[Line, Line], bool]) -> Lines:
    """Lines that differ on the axis `number` only and agree become one; what is not in the matrix is no difference."""
    buckets: dict[Heading, list[tuple[int, list[tuple[str, ...]], Line]]] = {}
    for place, (heading, line) in enumerate(lines.items()):
        inside = buckets.setdefault((*heading[:number], *heading[number + 1 :]), [])
        for _, values, other in inside:
            if agree(line, other):
                values.append(heading[number])
                for column, entry in line.items():
                    other[column] = MarkCounts.of((*other[column].marks, *entry.marks)) if column in other else entry
                break
        else:
            inside.append((place, [heading[number]], dict(line)))
    made = [
        (
            place,
            (*rest[:number], tuple(dict.fromkeys(name for names in values for name in names)), *rest[number:]),
            line,
        )
        for rest, inside in buckets.items()
        for place, values, line in inside
    ]
    # Each where the first of its lines was.
    return {heading: line for _, heading, line in sorted(made, key=lambda placed: placed[0])}


def summarized(lines: Lines) -> Lines:
    """Lines without their last axis, at each place all of its cells."""
    shorter: dict[Heading, Line] = {}
    for heading, line in lines.items():
        whole = shorter.setdefault(heading[:-1], {})
        for column, entry in line.items():
            whole[column] = MarkCounts.of((*whole[column].marks, *entry.marks)) if column in whole else entry
    return shorter


def _same_news(line: Line, other: Line) -> bool:
    """Whether both have the same at each place but for passes, and no place where one passed as the other did not."""
    return _news(line) == _news(other) and _no_contradiction(line, other)


def _news(line: Line) -> dict[Heading, object]:
    return {column: entry.worst for column, entry in line.items() if entry.mixed or entry.worst.outcome != "passed"}


def _no_contradiction(line: Line, other: Line) -> bool:
    """Whether all places at which both have cells have one and the same mark."""
    return all(
        not entry.mixed and not other[column].mixed and entry.worst == other[column].worst
        for column, entry in line.items()
        if column in other
    )
