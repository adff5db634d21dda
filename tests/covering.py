"""Samples where all combinations would be too many tests of the same code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Any


def in_turn(every: Iterable[Any], values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Each of `every` once, with the `values` in turn: `[("a", 1), ("b", 2), ("c", 1)]`. Tuples are taken apart."""
    return [(*_parts(one), *_parts(value)) for one, value in zip(every, cycle(values), strict=False)]


def _parts(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


NATIVE = ("none", "int8", "nf4", "nf4-double", "fp4")
"""The quantizations whose library the tests have: dense weights and bitsandbytes."""
