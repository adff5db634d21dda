"""Whether a matrix file is good: what makes it unusable, and which of its tables are about no cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.cli.cells import assumed, cells_on, load_matrix
from pytest_llmdevice.cli.layout import paragraph
from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.cell import AXIS_KEYS, Cell
from pytest_llmdevice.matrix.select import value_of
from pytest_llmdevice.text import plural

if TYPE_CHECKING:
    from pytest_llmdevice.matrix.schema import Matrix, Selection

_SERVER: Final = ("cuda=2", "rocm=2", "xpu=2")
"""Rules on the second card are about something, though this machine may have none."""


@dataclass(frozen=True, slots=True)
class Validated:
    """What became of one file.

    Attributes:
        name: as it was asked for.
        cells: how many cells it has with one card of each kind; 0 where there is a problem.
        problems: what makes it unusable, each a sentence with its key.
        notes: what it says in vain.
    """

    name: str
    cells: int = 0
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "matrix": self.name,
            "ok": not self.problems,
            "cells": self.cells,
            "problems": list(self.problems),
            "notes": list(self.notes),
        }

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        if not self.problems:
            yield f"{self.name}: OK, {plural(self.cells, 'cell')}"
        for problem in self.problems:
            yield f"{self.name}: {problem}"
        for note in self.notes:
            yield from paragraph(note, first="  note: ", rest="  ")


def validated(name: str) -> Validated:
    """Read the matrix `name` and look for what is wrong with it."""
    try:
        matrix = load_matrix(name)
        cells = cells_on(matrix, assumed(()))
        unmet = tuple(_unmet(matrix, cells_on(matrix, assumed(_SERVER))))
    except ConfigurationError as error:
        return Validated(name, problems=tuple(_problems(name, str(error))))
    return Validated(name, 0 if unmet else len(cells), unmet, () if unmet else tuple(_idle(name, matrix)))


def _problems(name: str, message: str) -> Iterator[str]:
    """What a message says of one problem or of several, without the path: that is said at the start of each line."""
    head, *lines = message.splitlines()
    for file in (name, str(Path.cwd() / name)):
        head = head.removeprefix("matrix ").removeprefix(f"{file}: ")
    yield from (line.strip() for line in lines) if lines else [head]


def _unmet(matrix: Matrix, cells: tuple[Cell, ...]) -> Iterator[str]:
    """What `[require]` asks for and no run can meet."""
    if matrix.require is None:
        return
    for key, axis in AXIS_KEYS.items():
        values = list(dict.fromkeys(value_of(cell, axis) for cell in cells))
        for pattern in getattr(matrix.require, key) or ():
            if not any(fnmatchcase(value, pattern) for value in values):
                yield f"require.{key}: no cell has {pattern!r} (the matrix has: {', '.join(values)})"


def _idle(name: str, matrix: Matrix) -> Iterator[str]:
    """The file's own tables that are about no cell; what it inherits may well be about others."""
    from pytest_llmdevice.matrix.files import locate, read

    table = read(locate(name, Path.cwd()))
    inventory = assumed(_SERVER)
    # In full: which of the allowed cells stand for a pair of values is not the file's affair.
    full = matrix.model_copy(update={"coverage": "full"})
    product = cells_on(full.model_copy(update={"exclude": (), "include": ()}), inventory)
    places: tuple[tuple[str, tuple[Selection, ...], tuple[Cell, ...]], ...] = (
        ("exclude", matrix.exclude, product),
        ("expect", matrix.expect, cells_on(full, inventory)),
    )
    for key, rules, concerned in places:
        own = table.get(key, [])
        count = len(own) if isinstance(own, list) else 1
        # The file's own come first, what it extends after them.
        for index, rule in enumerate(rules[:count]):
            selector = rule.selector
            if not any(selector.matches(cell) for cell in concerned):
                yield f"{key}[{index}] is about no cell of the matrix"
