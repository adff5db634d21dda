"""Writes plurals and lists in words, and makes texts that come from elsewhere harmless, for output of every kind.

What a run meets (exceptions, names, files of results) may hold anything. `harmless` is the one place that takes its
teeth out: no terminal obeys it, no log of a CI service takes it for a command, and every encoding can hold it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any, Final


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


_PROGRESS: Final = re.compile(r"\d+%\|.*\|")


def without_progress(text: str) -> list[str]:
    """The lines of `text` as a terminal shows them in the end, without progress bars.

    What a carriage return has covered was not to stay.
    """
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return [line for line in lines if not _PROGRESS.search(line)]


_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def encodable(text: str) -> str:
    r"""`text` with lone surrogates as escapes, `\udcff`: no encoding has them, and few parsers of JSON take them."""
    return text if text.isascii() else _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


_COLOUR: Final = re.compile(r"(\x1b\[[0-9;]*m)")

# Printable by Unicode's categories, and drawn as nothing: they hide what a name really is.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)

# GitHub takes `::name::` for a command at the beginning of a line, behind blanks too, and `##[name]` anywhere in it;
# Azure and TeamCity have words before the bracket. GitLab's marks of sections hold control characters.
_COLONS: Final = re.compile(r"(?<!\S):(?=:)")
_HASHES: Final = re.compile(r"#(?=#\w*\[)")


def harmless(text: str, *, lines: bool = False, colours: bool = False) -> str:
    r"""`text` with all that a terminal, a browser or the log of a CI service would obey written as an escape.

    Control characters, marks of direction, characters of no width and lone surrogates become `\x1b`, `\u202e`.

    Args:
        text: whatever it is.
        lines: whether line ends stay; each line is then looked at by itself.
        colours: whether sequences that only set a colour stay, where pytest itself has written some.
    """
    if lines and "\n" in text:
        return "\n".join(harmless(line, colours=colours) for line in text.split("\n"))
    if colours and "\x1b" in text:
        # Every second part is a colour.
        return "".join(part if number % 2 else harmless(part) for number, part in enumerate(_COLOUR.split(text)))
    if not text.isprintable():
        text = "".join(_visible(character) for character in text)
    if not text.isascii():
        text = _UNSEEN.sub(_escape, text)
    if "::" in text:
        text = _COLONS.sub(_escape, text)
    if "##" in text:
        text = _HASHES.sub(_escape, text)
    return text


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character in "\t\xa0" else character.encode("unicode_escape").decode("ascii")


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else match[0].encode("unicode_escape").decode("ascii")


def json_text(data: Any, *, indent: int | None = 2) -> str:
    """`data` as JSON that every parser takes and no log obeys: ASCII, without lone surrogates, NaN and infinities.

    What JSON has no number for is null. Without `indent` it is one line, as short as it can be.
    """
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(_strict(data), indent=indent, separators=separators, allow_nan=False)
    # Both are within a string: nothing else of JSON has such characters.
    return text.replace("##", "#\\u0023").replace("\x7f", "\\u007f")


def _strict(data: Any) -> Any:
    if isinstance(data, str):
        return encodable(data)
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {_strict(key) if isinstance(key, str) else key: _strict(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_strict(value) for value in data]
    return data
