"""Escapes data for Markdown as GitHub renders it: whatever the data holds, it is never markup."""

from __future__ import annotations

import re
from typing import Final

from pytest_llmdevice.report.texts import is_address, printable

_PLAIN: Final = re.compile(r"[A-Za-z0-9 ]")


def code(text: str, longest: int = 300) -> str:
    """`text` as a span of code, also within a table.

    In a span of code nothing is markup, an address or the name of a user; only backticks end it and only a pipe ends
    the place in a table.
    """
    shown = printable(text, longest)
    if not shown:
        return ""
    if set("`|\\") & set(shown):
        return f"<code>{literal(shown, longest)}</code>"
    return f"`{shown}`"


def literal(text: str, longest: int = 600) -> str:
    """`text` within HTML or between words: each character that Markdown or HTML may read is written by its number."""
    return "".join(_written(character) for character in printable(text, longest))


def _written(character: str) -> str:
    if _PLAIN.match(character) or not character.isascii():
        return character
    # The space of no width keeps GitHub from taking what follows for the name of a user, who would be notified.
    return f"&#{ord(character)};" + ("\u200b" if character == "@" else "")


_MARKUP: Final = re.compile(
    r"""
    ^[-=]                          # a list or a heading, at the beginning
    | (?<=www)\.                   # an address
    | :(?=[^\s\d]) | :(?=[-+\w]+:)  # an address or an emoji
    | (?<![^\W_])_ | _(?![^\W_])   # an underscore that is not within a word
    | [^\w\s.,;:()'"/=%?-]         # everything else but what is in any sentence
    """,
    re.VERBOSE | re.ASCII | re.IGNORECASE,
)
_NUMBERED: Final = re.compile(r"^(\d+)([.)])")


def prose(text: str, longest: int = 600) -> str:
    """`text` as words: only what could be markup is written by its number, so that it can be read unrendered too."""
    shown = _MARKUP.sub(lambda match: _written(match[0]), printable(text, longest))
    return _NUMBERED.sub(lambda match: match[1] + _written(match[2]), shown)


def address(text: str) -> str:
    """`text` as a link if it is the address of a page, and as code if it is anything else."""
    return f"<{text}>" if is_address(text) else code(text)
