"""Validates a matrix file: finds what makes it unusable, and tables that match no cell."""

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
    from pytest_llmdevice.matrix.axis_values import Selection
    from pytest_llmdevice.matrix.schema import Matrix

_CARDS: Final = ("cuda=2", "rocm=2", "xpu=2")
"""The assumed cards: two of each kind, so that rules on a second card match cells."""


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """The result of the validation of one file.

    Attributes:
        name: the name of the matrix as the user gave it.
        cells: the number of cells with one card of each kind; 0 if there is a problem.
        problems: what makes the file unusable, each as a sentence with its key.
        notes: tables that match no cell.
    """

    name: str
    cells: int = 0
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The result as JSON-compatible data."""
        return {
            "matrix": self.name,
            "ok": not self.problems,
            "cells": self.cells,
            "problems": list(self.problems),
            "notes": list(self.notes),
        }

    def lines(self) -> Iterator[str]:
        """The result as lines for a terminal."""
        if not self.problems:
            yield f"{self.name}: OK, {plural(self.cells, 'cell')}"
        for problem in self.problems:
            yield f"{self.name}: {problem}"
        for note in self.notes:
            yield from paragraph(note, first="  note: ", rest="  ")


def validate_matrix(name: str) -> ValidationResult:
    """Read and validate the matrix `name`."""
    try:
        matrix = load_matrix(name)
        cells = cells_on(matrix, assumed(()))
        unmet = tuple(_unmet(matrix, cells_on(matrix, assumed(_CARDS))))
    except ConfigurationError as error:
        return ValidationResult(name, problems=error.problems)
    return ValidationResult(name, 0 if unmet else len(cells), unmet, () if unmet else tuple(_idle(name, matrix)))


def _unmet(matrix: Matrix, cells: tuple[Cell, ...]) -> Iterator[str]:
    """The values that `[require]` asks for and no cell has."""
    if matrix.require is None:
        return
    for key, axis in AXIS_KEYS.items():
        values = list(dict.fromkeys(value_of(cell, axis) for cell in cells))
        for pattern in getattr(matrix.require, key) or ():
            if not any(fnmatchcase(value, pattern) for value in values):
                yield f"require.{key}: no cell has {pattern!r} (the matrix has: {', '.join(values)})"


def _idle(name: str, matrix: Matrix) -> Iterator[str]:
    """The file's own tables that match no cell; inherited ones may be meant for other matrices."""
    from pytest_llmdevice.matrix.files import locate, read

    table = read(locate(name, Path.cwd()))
    inventory = assumed(_CARDS)
    # With full coverage, because pairwise coverage may drop the cells that a rule matches.
    full = matrix.model_copy(update={"coverage": "full"})
    product = cells_on(full.model_copy(update={"exclude": (), "include": ()}), inventory)
    places: tuple[tuple[str, tuple[Selection, ...], tuple[Cell, ...]], ...] = (
        ("exclude", matrix.exclude, product),
        ("expect", matrix.expect, cells_on(full, inventory)),
    )
    for key, rules, concerned in places:
        own = table.get(key, [])
        count = len(own) if isinstance(own, list) else 1
        # The file's own tables come before those that it inherits.
        for index, rule in enumerate(rules[:count]):
            selector = rule.selector
            if not any(selector.matches(cell) for cell in concerned):
                yield f"{key}[{index}] is about no cell of the matrix"
