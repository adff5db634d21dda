"""Makes texts that come from a run safe to show: no control characters, on one line, and not too long."""

from __future__ import annotations

import re
from typing import Final

from pytest_llmdevice.text import harmless

LONGEST: Final = 600
"""Characters of a message that are shown; the file of results has all of it."""


def printable(text: str, longest: int = LONGEST) -> str:
    """`text` on one line: control characters, surrogates and changes of direction as escapes, and not too long.

    A terminal would obey them, and a page would show something else than what is there.
    """
    cut = text[: longest * 4]
    line = harmless(" ".join(cut.split()))
    return line if len(line) <= longest and cut == text else f"{line[: longest - 3].rstrip()}..."


def ascii_only(text: str) -> str:
    """`text` with every other character as an escape, for a terminal that has no more."""
    return text.encode("ascii", "backslashreplace").decode("ascii")


_ADDRESS: Final = re.compile(r"https://[A-Za-z0-9.-]+(?:/[\w.~%/?#=&+:@!,;-]*)?", re.ASCII)


def is_address(text: str) -> bool:
    """Whether `text` is nothing but an address of the web, without a character that Markdown or HTML would read."""
    return _ADDRESS.fullmatch(text) is not None
