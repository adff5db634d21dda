"""Finds the order in which a matrix has the values of an axis from the order of its cells."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, TypeAlias

Point: TypeAlias = tuple[str, ...]
"""The values of a cell, one for each axis, in the order in which the matrix goes through them."""


def in_order(points: Sequence[Point], axis: int) -> list[str]:
    """The values on the axis number `axis`, in the order of the matrix.

    A matrix with few cells has no cell at all with the first values of all axes, so the order in which values are
    first met is not its order. But of two cells that differ first on this axis, the earlier has the earlier value.
    """
    met = list(dict.fromkeys(point[axis] for point in points))
    after: dict[str, set[str]] = {name: set() for name in met}
    for point, following in pairwise(points):
        if point[:axis] == following[:axis] and point[axis] != following[axis]:
            after[point[axis]].add(following[axis])
    before = {name: {other for other in met if name in after[other]} for name in met}
    ordered: list[str] = []
    while len(ordered) < len(met):
        free = [name for name in met if name not in ordered and not before[name] - set(ordered)]
        if not free:
            # Cells that were added to the product, or several matrices, say different things.
            return met
        ordered.append(free[0])
    return ordered


MATRIX_ORDER: Final = ("model", "device", "dtype", "quantization", "strategy", "attention")
"""The axes as the product goes through them, the slowest first."""
