"""Small words that several messages share."""

from __future__ import annotations


def several(count: int, what: str) -> str:
    """`"1 run"`, `"2,000 runs"`."""
    return f"{count:,} {what}{'s' if count != 1 else ''}"
