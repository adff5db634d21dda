"""Whether the cells that passed are the coverage that `[require]` asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from pytest_llmdevice.matrix.cell import AXIS_KEYS, Cell
from pytest_llmdevice.matrix.schema import Require
from pytest_llmdevice.matrix.select import values_of


def missing(require: Require, cells: Sequence[Cell], passed: Callable[[Cell], bool]) -> list[str]:
    """One sentence for each value that `require` names and no passed cell has.

    A pattern stands for each of the matrix' values that it fits; one that fits none is missing as it is.
    """
    good = [cell for cell in cells if passed(cell)]
    lines = []
    for key, axis in AXIS_KEYS.items():
        for pattern in getattr(require, key) or ():
            values = dict.fromkeys(
                value for cell in cells for value in values_of(cell, axis) if fnmatchcase(value, pattern)
            )
            for value in values or (pattern,):
                having = [cell for cell in cells if value in values_of(cell, axis)]
                if not any(value in values_of(cell, axis) for cell in good):
                    lines.append(f"{axis} {value}: none of its {len(having)} cells passed on real hardware")
    return lines
