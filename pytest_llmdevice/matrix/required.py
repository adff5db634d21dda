"""Compares the cells that passed with the coverage that `[require]` asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from pytest_llmdevice.matrix.cell import AXIS_KEYS, Cell
from pytest_llmdevice.matrix.schema import Require
from pytest_llmdevice.matrix.select import value_of


def missing(require: Require, cells: Sequence[Cell], passed: Callable[[Cell], bool]) -> list[str]:
    """One sentence for each value that `require` names and no cell has that passed on real hardware.

    A pattern stands for each of the matrix' values that it fits; one that fits none is missing as it is.
    """
    good = [cell for cell in cells if passed(cell)]
    # A simulated device proves nothing about hardware.
    real = [cell for cell in good if not cell.simulated]
    lines = []
    for key, axis in AXIS_KEYS.items():
        for pattern in getattr(require, key) or ():
            for value in _fitting(cells, axis, pattern) or (pattern,):
                if not _having(real, axis, value):
                    count, simulated = _having(cells, axis, value), _having(good, axis, value)
                    only = f", {simulated} passed only simulated" if simulated else ""
                    lines.append(f"{axis} {value}: none of its {count} cells passed on real hardware{only}")
    return lines


def _having(cells: Sequence[Cell], axis: str, value: str) -> int:
    return sum(value_of(cell, axis) == value for cell in cells)


def _fitting(cells: Sequence[Cell], axis: str, pattern: str) -> tuple[str, ...]:
    values = dict.fromkeys(value_of(cell, axis) for cell in cells)
    return tuple(value for value in values if fnmatchcase(value, pattern))
