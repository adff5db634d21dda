"""Formats reference pages: tables, names as code, and what docstrings say of attributes."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Final

WIDTH: Final = 120
"""Characters of a line of prose."""


def wrapped(block: str) -> str:
    """A paragraph in lines of `WIDTH`; headings, tables and code as they are."""
    return block if block.startswith(("#", "|", "```")) else textwrap.fill(block, WIDTH, break_on_hyphens=False)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def code(text: str) -> str:
    """`text` as code; nothing where it is empty."""
    return f"`{text}`" if text else ""


def codes(texts: Iterable[str]) -> str:
    """The texts as code, joined by commas."""
    return ", ".join(map(code, texts))


def yes(value: bool) -> str:
    """`yes`, or nothing."""
    return "yes" if value else ""


def attributes_of(described: type) -> dict[str, str]:
    """What the docstrings of a class and its bases say of each attribute, the bases' first."""
    found: dict[str, str] = {}
    for base in reversed(described.__mro__):
        _, _, section = (vars(base).get("__doc__") or "").partition("Attributes:\n")
        for name, text in re.findall(r"^ {8}(\w+): ((?:.|\n {9,})+)", section, re.MULTILINE):
            found[name] = _sentence(" ".join(text.split()))
    return found


def first_paragraph(described: type) -> str:
    """The first paragraph of the docstring of a class, in one line."""
    return " ".join((described.__doc__ or "").partition("\n\n")[0].split())


def _sentence(text: str) -> str:
    # A capital where the text begins with a word; names in backticks stay as they are.
    return text[:1].upper() + text[1:]
