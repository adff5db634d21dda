"""Counts the cells of a matrix: by value, saved by the coverage, and covered by each of its rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.cli.cells import cells_on
from pytest_llmdevice.hardware import Inventory
from pytest_llmdevice.matrix.cell import AXES, AXIS_KEYS, Cell
from pytest_llmdevice.matrix.select import value_of

if TYPE_CHECKING:
    from pytest_llmdevice.matrix.axis_values import Selection
    from pytest_llmdevice.matrix.schema import Matrix


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule in the file of a matrix.

    Attributes:
        patterns: key of the axis -> patterns; an axis that is missing matches all values.
        cells: the number of cells that it matches.
        reason: the reason that the file gives.
        details: its other entries, as JSON-compatible data.
    """

    patterns: dict[str, tuple[str, ...]]
    cells: int
    reason: str
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Overview:
    """The contents of a matrix on one machine.

    Attributes:
        name: the name of the matrix as the user gave it.
        description: the description in its file.
        coverage: `"full"` or `"pairwise"`.
        cells: the cells.
        product: the number of cells in the full product of the axes.
        allowed: the number of those that no rule excludes.
        included: the number of cells that only `[[include]]` adds.
        excluded: every `[[exclude]]`; a cell counts for the first one that matches it.
        expected: every `[[expect]]`, with the number of cells that it matches.
        required: `[require]`, or None.
    """

    name: str
    description: str
    coverage: str
    cells: tuple[Cell, ...]
    product: int
    allowed: int
    included: int
    excluded: tuple[Rule, ...]
    expected: tuple[Rule, ...]
    required: dict[str, tuple[str, ...]] | None

    @property
    def axes(self) -> dict[str, dict[str, int]]:
        """Axis -> value -> the number of cells with it."""
        return {axis: dict(Counter(value_of(cell, axis) for cell in self.cells)) for axis in AXES}

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON-compatible data."""
        return {
            "matrix": self.name,
            "description": self.description,
            "coverage": self.coverage,
            "product": self.product,
            "allowed": self.allowed,
            "included": self.included,
            "count": len(self.cells),
            "axes": self.axes,
            "excluded": [_rule_json(rule) for rule in self.excluded],
            "expected": [_rule_json(rule) for rule in self.expected],
            "required": self.required,
            "cells": [cell.id for cell in self.cells],
        }


def overview(name: str, matrix: Matrix, inventory: Inventory) -> Overview:
    """Count the cells of `matrix` on a machine with `inventory`.

    Raises:
        ConfigurationError: the matrix has no cells, or two with one id.
    """
    cells = cells_on(matrix, inventory)
    product = cells_on(matrix.model_copy(update={"coverage": "full", "exclude": (), "include": ()}), inventory)
    allowed = 0
    fitting = [0] * len(matrix.exclude)
    selectors = [rule.selector for rule in matrix.exclude]
    for cell in product:
        first = next((index for index, selector in enumerate(selectors) if selector.matches(cell)), None)
        if first is None:
            allowed += 1
        else:
            fitting[first] += 1
    without = _without_includes(matrix, inventory)
    return Overview(
        name=name,
        description=matrix.description,
        coverage=matrix.coverage,
        cells=cells,
        product=len(product),
        allowed=allowed,
        included=len(set(cells) - set(without)),
        excluded=tuple(
            Rule(patterns(rule), count, rule.reason, {}) for rule, count in zip(matrix.exclude, fitting, strict=True)
        ),
        expected=_expectations(matrix, cells),
        required=patterns(matrix.require) if matrix.require is not None else None,
    )


def patterns(rule: Selection) -> dict[str, tuple[str, ...]]:
    """The patterns of a rule, by the key of the axis."""
    given: dict[str, tuple[str, ...] | None] = {key: getattr(rule, key) for key in AXIS_KEYS}
    return {key: values for key, values in given.items() if values is not None}


def format_patterns(patterns: Mapping[str, Sequence[str]]) -> str:
    """Write patterns in a line: `"devices cpu mps, strategies split"`."""
    return ", ".join(f"{key} {' '.join(values)}" for key, values in patterns.items()) or "all cells"


def _without_includes(matrix: Matrix, inventory: Inventory) -> tuple[Cell, ...]:
    if not matrix.include:
        return cells_on(matrix, inventory)
    product = matrix.model_copy(update={"include": ()})
    # A matrix that excludes its whole product has no cells without its `[[include]]`.
    from pytest_llmdevice.errors import ConfigurationError

    try:
        return cells_on(product, inventory)
    except ConfigurationError:
        return ()


def _expectations(matrix: Matrix, cells: Sequence[Cell]) -> tuple[Rule, ...]:
    rules = []
    for rule in matrix.expect:
        selector = rule.selector
        details: dict[str, Any] = {
            "checks": rule.checks,
            "versions": dict(rule.versions),
            "xfail": rule.xfail is not None,
            "tolerance": rule.tolerance,
            "dense": rule.dense,
            "random_state": rule.random_state,
            "source": rule.source,
        }
        count = sum(selector.matches(cell) for cell in cells)
        rules.append(Rule(patterns(rule), count, rule.xfail or "", details))
    return tuple(rules)


def _rule_json(rule: Rule) -> dict[str, Any]:
    return {"patterns": rule.patterns, "cells": rule.cells, "reason": rule.reason, **rule.details}
