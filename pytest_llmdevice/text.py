"""Writes plurals and lists in words, for messages of every kind."""

from __future__ import annotations

from collections.abc import Iterable


def plural(count: int, noun: str, many: str = "") -> str:
    """`"1 cell"`, `"1,200 cells"`; `many` is the plural of a noun that does not form it with an s."""
    return f"{count:,} {noun if count == 1 else many or f'{noun}s'}"


def listed(names: Iterable[str], most: int = 3) -> str:
    """`"a, b, c and 4 more"`."""
    found = list(names)
    rest = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + rest


def joined(names: Iterable[str]) -> str:
    """`"a, b and c"`."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
