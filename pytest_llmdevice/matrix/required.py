"""Whether the cells that passed are the coverage that `[require]` asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from pytest_llmdevice.matrix.cell import AXIS_KEYS, Cell
from pytest_llmdevice.matrix.schema import Require
from pytest_llmdevice.matrix.select import value_of


def missing(require: Require, cells: Sequence[Cell], passed: Callable[[Cell], bool]) -> list[str]:
    """One sentence for each value that `require` names and no passed cell has.

    A pattern stands for each of the matrix' values that it fits; one that fits none is missing as it is.
    """
    good = [cell for cell in cells if passed(cell)]
    lines = []
    for key, axis in AXIS_KEYS.items():
        for pattern in getattr(require, key) or ():
            for value in _fitting(cells, axis, pattern) or (pattern,):
                count = sum(value_of(cell, axis) == value for cell in cells)
                if not any(value_of(cell, axis) == value for cell in good):
                    lines.append(f"{axis} {value}: none of its {count} cells passed on real hardware")
    return lines


def _fitting(cells: Sequence[Cell], axis: str, pattern: str) -> tuple[str, ...]:
    values = dict.fromkeys(value_of(cell, axis) for cell in cells)
    return tuple(value for value in values if fnmatchcase(value, pattern))
