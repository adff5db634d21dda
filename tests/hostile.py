"""Texts that a terminal, a browser, the log of a CI service or a parser would obey, for tests of every output."""

from __future__ import annotations

import re

ESCAPES = "\x1b[2J\x1b]0;title\x07\x9b31m\x00\x08\x7f"
LINES = "\r\n::error::taken\n  ::stop-commands::x\r##[group]taken\n##vso[task.complete]x\x0b\x85\u2028::debug::x"
SECTION = "section_start:1:taken\r\x1b[0K"
UNSEEN = "\u202e\u2066\u200b\u200f\ufeff\u00ad\u3164\ufe0f\U000e0041"
SURROGATES = "\ud800 \udcff"
MARKUP = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> | `x` [a](javascript:alert(1)) @somebody"

TEXT = f"a{ESCAPES}{LINES}{SECTION}{UNSEEN}{MARKUP}"
"""Everything that a file of results can hold."""

EVERYTHING = TEXT + SURROGATES
"""The same, and what only Python's texts can hold."""

_RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\u00ad\u3164\ufe00-\ufe0f"
                  "\ud800-\udfff\U000e0000-\U000e01ef]")  # fmt: skip
_COMMAND = re.compile(r"(?m)^\s*::|##\w*\[")


def obeyed(output: str) -> list[str]:
    """What in `output` somebody would obey; empty for what is harmless."""
    return _RAW.findall(output) + _COMMAND.findall(output)
