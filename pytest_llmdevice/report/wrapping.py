"""Breaks text into lines of a given width, counted in columns of the terminal: some characters take two."""

from __future__ import annotations

import re
from typing import Final

_LONG: Final = 6
"""Characters of a word that is not broken after hyphens and plus signs."""


def columns(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def longest(text: str) -> int:
    """The columns that `text` takes at least, when it is broken where it may be."""
    return max(columns(piece) for word in text.split(" ") for piece in _pieces(word))


def broken(text: str, width: int, *, in_words: bool = True) -> list[str]:
    """`text` in lines of at most `width` columns.

    `in_words` says whether a word may be broken after a hyphen or a plus sign too; one that is longer than a line is
    broken anyway.
    """
    lines = [""]
    for word in text.split():
        for number, piece in enumerate(_pieces(word) if in_words else [word]):
            between = " " if number == 0 and lines[-1] else ""
            if columns(lines[-1] + between + piece) <= width:
                lines[-1] += between + piece
            else:
                lines += _chopped(piece, width)
    return [line for line in lines if line] or [""]


def filled(text: str, width: int) -> str:
    """`text` with blanks at its end, `width` columns wide."""
    return text + " " * (width - columns(text))


def paragraph(text: str, width: int, first: str = "", rest: str | None = None) -> list[str]:
    """`text` in lines of at most `width` columns, the first of which begins with `first` and the others with `rest`.

    Left out, `rest` is as much space as `first` takes.
    """
    rest = " " * columns(first) if rest is None else rest
    lines = broken(text, max(8, width - max(columns(first), columns(rest))), in_words=False)
    return [(rest if number else first) + line for number, line in enumerate(lines)]


def _pieces(word: str) -> list[str]:
    return re.findall(r"[^-+]+[-+]*|[-+]+", word) if len(word) > _LONG else [word]


def _chopped(piece: str, width: int) -> list[str]:
    lines = [""]
    for character in piece:
        if columns(lines[-1] + character) > width and lines[-1]:
            lines.append("")
        lines[-1] += character
    return lines
