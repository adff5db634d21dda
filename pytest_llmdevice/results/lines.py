"""Reads files of JSON lines, and refuses what other readers would understand in another way, or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

from pytest_llmdevice.errors import ResultsError

LONGEST: Final = 2**24
"""Bytes of a line. The record of a cell has thousands; whatever is longer was not written by a run."""


def lines_of(path: Path, what: str) -> Iterator[bytes]:
    """The lines of `path`, each without its end; the last one is empty unless the file was cut off.

    Raises:
        ResultsError: the file cannot be read, `what` being what was expected to be in it, or a line is too long.
    """
    number = 1
    try:
        with path.open("rb") as file:
            while line := file.readline(LONGEST + 2):
                if not line.endswith(b"\n"):
                    if len(line) > LONGEST:
                        raise ResultsError(f"{path}:{number}: a line of more than {LONGEST:,} bytes: {NO_RECORD}")
                    yield line
                    return
                yield line[:-1]
                number += 1
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ResultsError(f"{path}: {what} cannot be read: {error.strerror or error}") from None
    yield b""


NO_RECORD: Final = "this is no record of a run"


def parsed(line: bytes) -> Any:
    """What `line` holds.

    Raises:
        ValueError: it is not JSON as every reader understands it; the message says why.
    """
    try:
        return json.loads(line, object_pairs_hook=_single, parse_constant=_no_number)
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except json.JSONDecodeError:
        raise ValueError("not JSON, the line was damaged or cut off") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deep") from None
    except ValueError as error:
        # Python's own is about the digits of a number, and names a function to call.
        why = str(error) if str(error).startswith("not ") else "not JSON that can be read: a number has too many digits"
        raise ValueError(why) from None


def _single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"not JSON with one meaning: the key {twice[:100]!r} is there twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"not JSON: {name} is no number")
