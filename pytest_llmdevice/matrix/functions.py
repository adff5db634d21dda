"""Finds functions that a matrix file names, as `"module:function"`, on the path or beside the file."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.axis_values import invalid
from pytest_llmdevice.matrix.cell import Cell

DOTTED: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""A function by its module."""


def dotted(value: str | None) -> str | None:
    """`value`, if it is the name of a function, or None. Raises what pydantic reports."""
    if value is not None and not DOTTED.fullmatch(value):
        raise invalid(f"{value!r} names no function; write 'module:function'")
    return value


class Named:
    """A function by its name, imported when it is first called."""

    def __init__(self, path: str, folder: Path) -> None:
        self.path, self.folder = path, folder

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Call it.

        Raises:
            ConfigurationError: there is no such module or function.
            Exception: what it raises.
        """
        return self.found()(*given, **named)

    def found(self) -> Callable[..., Any]:
        """The function. Raises ConfigurationError."""
        name, _, attributes = self.path.partition(":")
        try:
            value: Any = imported(name, self.folder)
        except ImportError as error:
            raise ConfigurationError(f"{self.path} of the matrix file in {self.folder}: {error}") from error
        for attribute in attributes.split("."):
            value = getattr(value, attribute, None)
        if not callable(value):
            raise ConfigurationError(f"{self.path} of the matrix file in {self.folder}: there is no such function")
        return value  # type: ignore[no-any-return]


class Configuration:
    """What makes the configuration of a cell by a function of a matrix file: with keywords, else with the cell."""

    def __init__(self, function: str | None, arguments: Mapping[str, Any], folder: Path) -> None:
        self._arguments = dict(arguments)
        self._make = None if function is None else Named(function, folder)

    def __call__(self, cell: Cell) -> Any:
        """The `quantization_config`; None without a function. Raises whatever that raises."""
        if self._make is None:
            return None
        return self._make(**self._arguments) if self._arguments else self._make(cell)


def imported(name: str, folder: Path) -> ModuleType:
    """The module `name`, from the path, else from `folder`.

    Raises:
        ImportError: it is in neither, or raises this itself.
    """
    if name in sys.modules:
        return sys.modules[name]
    file = folder.joinpath(*name.split(".")).with_suffix(".py")
    if not file.is_file() or _on_the_path(name):
        return import_module(name)
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be imported")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _on_the_path(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def exists(path: str, folder: Path) -> bool:
    """Whether the module of a function can be found; it is not imported, but for the packages that it is in."""
    name = path.partition(":")[0]
    return name in sys.modules or _on_the_path(name) or folder.joinpath(*name.split(".")).with_suffix(".py").is_file()
