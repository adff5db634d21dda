"""Formats text for a terminal: wrapped and indented paragraphs, and tables, without colour so they can be piped."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

WIDEST: Final = 100
"""The maximum width of lines, because longer ones are hard to read."""

UNBROKEN: Final = "\N{NO-BREAK SPACE}"
"""A space at which `paragraph` does not break lines; it is written as a normal space."""


def width() -> int:
    """The number of columns to use: those of the terminal, up to `WIDEST`; 80 without a terminal."""
    return max(40, min(shutil.get_terminal_size().columns, WIDEST))


def paragraph(text: str, *, first: str = "", rest: str | None = None) -> list[str]:
    """Wrap `text` to lines.

    Words are never broken, so that URLs and commands can be copied.

    Args:
        text: the text; it is not broken at `UNBROKEN` spaces.
        first: the indent of the first line.
        rest: the indent of the others; by default spaces, as wide as `first`.
    """
    lines = textwrap.wrap(
        text,
        width(),
        initial_indent=first,
        subsequent_indent=" " * len(first) if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(UNBROKEN, " ") for line in lines] or [first.rstrip()]


def labelled(pairs: Iterable[tuple[str, str]], indent: int = 2) -> Iterator[str]:
    """Format pairs `(label, text)` as two columns, with the text wrapped."""
    rows = list(pairs)
    wide = max((len(label) for label, _ in rows), default=0)
    for label, text in rows:
        yield from paragraph(text, first=f"{' ' * indent}{label:<{wide}}  ")


def table(rows: Sequence[Sequence[str]], numbers: Sequence[int] = (), indent: int = 2) -> Iterator[str]:
    """Format `rows`, the first of which is the header, in columns; those with an index in `numbers` right-aligned."""
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        parts = [
            text.rjust(wide[column]) if column in numbers else text.ljust(wide[column])
            for column, text in enumerate(row)
        ]
        yield (" " * indent + "  ".join(parts)).rstrip()


def percent(part: int, whole: int) -> str:
    """A share in percent, for a `paragraph`: `"6 %"`, and `"under 1 %"` instead of rounding to zero."""
    share = 100 * part / whole if whole else 0.0
    return f"{share:.0f}{UNBROKEN}%" if share >= 1 or part == 0 else f"under 1{UNBROKEN}%"
