"""Finds and reads matrix files: the shipped ones by name, any other by path."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.suggest import nearest

MOST_BYTES: Final = 2**18
"""Of a matrix file; the largest one that is shipped has a tenth of it."""

MOST_LEVELS: Final = 16
"""Of tables and arrays within each other; the keys of a matrix need four."""

_PART: Final = r"(?:[\w-]+|\"[^\"\n]*\"|'[^'\n]*')[ \t]*\.[ \t]*"
_LONG_KEY: Final = re.compile(rf"(?<![\w-])(?:{_PART}){{{MOST_LEVELS * 4}}}")


def folder() -> Path:
    """Where the shipped matrices are: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "matrices"
    return inside if inside.is_dir() else package.parent / "matrices"


def shipped() -> tuple[str, ...]:
    """Names of the shipped matrices, sorted."""
    return tuple(sorted(path.stem for path in folder().glob("*.toml")))


def locate(name: str, base: Path) -> Path:
    """The file that `name` means: a shipped matrix, or a path relative to `base`.

    Raises:
        ConfigurationError: there is neither; the message lists the shipped names and the nearest one.
    """
    if name in shipped():
        return folder() / f"{name}.toml"
    path = base / name
    try:
        if path.is_file():
            return path
        if path.is_dir():
            raise ConfigurationError(f"matrix {name!r}: {path} is a folder; a matrix is a TOML file")
    except OSError as error:
        raise ConfigurationError(f"matrix {name!r}: {path} cannot be read: {error.strerror}") from None
    guess = nearest(name, shipped())
    hint = f"; did you mean {guess!r}?" if guess else ""
    raise ConfigurationError(
        f"unknown matrix {name!r}: no file {path}{hint} (shipped matrices: {', '.join(shipped())})"
    )


def read(path: Path) -> dict[str, object]:
    """The TOML table in `path`.

    Raises:
        ConfigurationError: the file cannot be read, is not TOML, or is larger or deeper than any matrix; the message
            has the line and column, where there is one.
    """
    import tomllib

    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            problem = f"is larger than {MOST_BYTES:,} bytes, as no matrix is"
        else:
            text = data.decode()
            # Before it is parsed: the time that tomllib takes grows with the square of the parts.
            table = None if _LONG_KEY.search(text) else tomllib.loads(text)
            if table is not None and not _deep(table):
                return table
            problem = f"is nested deeper than {MOST_LEVELS} levels, as no matrix is"
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problem = f"not valid TOML: {error}"
    except RecursionError:
        problem = f"is nested deeper than {MOST_LEVELS} levels, as no matrix is"
    except ValueError:
        # Python's own, about the digits of a number; it names a function to call.
        problem = "not valid TOML: a number has too many digits"
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
    raise ConfigurationError(f"{path}: {problem}", [problem])


def _deep(table: dict[str, object]) -> bool:
    """Whether `table` has more levels than a matrix can have; without recursion, since it may have 100,000."""
    level: list[object] = [table]
    for _ in range(MOST_LEVELS):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
        ]
    return bool(level)
