"""Finds and reads matrix files: the shipped ones by name, any other by path."""

from __future__ import annotations

from pathlib import Path

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.suggest import nearest


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
        ConfigurationError: the file cannot be read or is not TOML; the message has the line and column.
    """
    import tomllib

    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problem = f"not valid TOML: {error}"
        raise ConfigurationError(f"{path}: {problem}", [problem]) from None
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
        raise ConfigurationError(f"{path}: {problem}", [problem]) from None
