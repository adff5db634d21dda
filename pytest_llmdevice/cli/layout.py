"""Lines of text for a terminal: paragraphs that are indented and wrapped, and tables. No colour, they may be piped."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

WIDEST: Final = 100
"""Longer lines are hard to read, however wide the terminal."""

UNBROKEN: Final = "\N{NO-BREAK SPACE}"
"""A blank between words that belong on one line; `paragraph` writes a common one."""


def width() -> int:
    """Columns to use: those of the terminal, 80 where there is none."""
    return max(40, min(shutil.get_terminal_size().columns, WIDEST))


def paragraph(text: str, *, first: str = "", rest: str | None = None) -> list[str]:
    """`text` wrapped, `first` before the first line and `rest` (as many blanks if left out) before the others.

    Words are never broken: addresses and commands are to be copied. A blank that is `UNBROKEN` is kept within a line.
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
    """`(label, text)` as two columns, the second one wrapped."""
    rows = list(pairs)
    wide = max((len(label) for label, _ in rows), default=0)
    for label, text in rows:
        yield from paragraph(text, first=f"{' ' * indent}{label:<{wide}}  ")


def table(rows: Sequence[Sequence[str]], numbers: Sequence[int] = (), indent: int = 2) -> Iterator[str]:
    """`rows`, the first one the heads, in columns as wide as their widest text; those in `numbers` to the right."""
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        parts = [
            text.rjust(wide[column]) if column in numbers else text.ljust(wide[column])
            for column, text in enumerate(row)
        ]
        yield (" " * indent + "  ".join(parts)).rstrip()


def percent(part: int, whole: int) -> str:
    """`"6 %"`, and `"under 1 %"` for what would be rounded to nothing; for a `paragraph`."""
    share = 100 * part / whole if whole else 0.0
    return f"{share:.0f}{UNBROKEN}%" if share >= 1 or part == 0 else f"under 1{UNBROKEN}%"
