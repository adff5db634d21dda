"""Chooses which of the allowed cells run: all of them, or a covering array of their pairs."""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from itertools import combinations
from typing import TypeAlias

from allpairspy import AllPairs

Point: TypeAlias = tuple[str, ...]
"""One value for each axis, in the order of the axes."""

Pair: TypeAlias = tuple[int, str, int, str]
"""Two axes and their values."""


def pairs_of(point: Point) -> set[Pair]:
    """Every pair of values in `point`."""
    return {(i, point[i], j, point[j]) for i, j in combinations(range(len(point)), 2)}


@lru_cache(maxsize=16)
def pairwise(allowed: tuple[Point, ...], already: tuple[Point, ...] = ()) -> tuple[Point, ...]:
    """A small subset of `allowed` in which every pair of values that occurs in `allowed` occurs.

    The array comes from allpairspy, which may stop early when constraints leave it without a fitting row
    (its greedy search accepts a row that adds nothing as the end); what it left uncovered is completed from
    `allowed`, the point with the most missing pairs first. Pairs that `already` covers are not asked for
    again. Deterministic: the same input gives the same list, in the order of `allowed`.
    """
    unique = list(OrderedDict.fromkeys(allowed))
    width = len(unique[0]) if unique else 0
    if width < 2:
        return tuple(unique)
    # Telling the search which prefixes can be completed makes its backtracking exact.
    prefixes = {point[:length] for point in unique for length in range(1, width + 1)}
    axes = [list(OrderedDict.fromkeys(point[axis] for point in unique)) for axis in range(width)]
    rows = AllPairs(axes, filter_func=lambda row: tuple(row) in prefixes)
    chosen = {tuple(row) for row in rows}
    pairs = {point: pairs_of(point) for point in unique}
    missing = set().union(*pairs.values()) - set().union(*map(pairs_of, already), set())
    # A row all of whose pairs are covered elsewhere would only cost time.
    kept: set[Point] = set()
    for point in (point for point in unique if point in chosen):
        if pairs[point] & missing:
            kept.add(point)
            missing -= pairs[point]
    while missing:
        best = max(unique, key=lambda point: len(pairs[point] & missing))
        kept.add(best)
        missing -= pairs[best]
    return tuple(point for point in unique if point in kept)
