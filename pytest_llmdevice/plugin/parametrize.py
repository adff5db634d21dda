"""Turns cells into pytest parameters, with ids, markers and skips, and applies a test's own markers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.hardware import Requirements, parse_memory, unmet
from pytest_llmdevice.matrix.cell import AXIS_KEYS, REFERENCE, Cell
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.matrix.select import Selector
from pytest_llmdevice.matrix.suggest import unknown

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

    from pytest_llmdevice.plugin.session import MatrixRun

FIXTURE = "llm_cell"

NOT_REQUESTED = "not requested: this test is for {marker}; run it with --llm-matrix"
NO_CARDS = "not requested: --llm-simulate shows simulated cards to the cells of the cpu, to see whether they stay there"
NO_CELL = "not requested: no cell of the matrix fits {marker}"

_REQUIREMENTS = tuple(field.name for field in fields(Requirements))


class Parameters:
    """The pytest parameters of a run's cells, made once for all tests."""

    def __init__(self, run: MatrixRun) -> None:
        self._run = run
        self._marked: dict[object, bool] = {}

    @cached_property
    def _by_cell(self) -> dict[Cell, ParameterSet]:
        mark = pytest.mark.llm_cell
        return {
            cell: pytest.param(cell, id=values["llm.cell"], marks=mark(**cell.values()))
            for cell, values in self._properties.items()
        }

    @cached_property
    def _properties(self) -> dict[Cell, dict[str, Any]]:
        return {cell: user_properties(cell, self._run) for cell in self._run.cells}

    def label(self, item: pytest.Item, cell: Cell) -> None:
        """Give `item` the flat `llm.*` properties of its cell, for JUnit XML, reportlog and other reporters."""
        item.user_properties.extend(self._properties[cell].items())
        item.user_properties.append(("llm.check", check_of(item)))

    def mark(self, item: pytest.Item, cell: Cell) -> None:
        """Add the skips and expected failures that the test's own markers stand for on this cell."""
        # All cells of a test function carry the same markers: looked for once.
        function = getattr(item, "function", item)
        if function not in self._marked:
            names = {mark.name for mark in item.iter_markers()}
            self._marked[function] = bool(names & {"llm_requires", "llm_check"})
        if self._marked[function]:
            skip_unmet(item, cell, self._run)
            expect_failure(item, cell, self._run)

    def apply(self, metafunc: pytest.Metafunc) -> None:
        """Parametrize a test that asks for a cell, directly or through another fixture."""
        marks = list(metafunc.definition.iter_markers("llm_matrix"))
        selectors = [selector_of(mark) for mark in marks]
        beside = any(_needs_cards(mark) for mark in metafunc.definition.iter_markers("llm_check"))
        parameters = [
            parameter
            for cell, parameter in self._by_cell.items()
            if all(selector.matches(cell) for selector in selectors) and (not beside or self._run.beside(cell))
        ]
        if not parameters:
            reason = NO_CARDS if beside else NO_CELL.format(marker=_written(marks))
            parameters = [pytest.param(None, id="no-cell", marks=[pytest.mark.skip(reason=reason)])]
        metafunc.parametrize(FIXTURE, parameters, indirect=True, scope="session")


def _needs_cards(mark: pytest.Mark) -> bool:
    """Whether the check that an `llm_check` marker names is about cells of the cpu beside simulated cards."""
    check = current().get("check", mark.args[0])
    return check is not None and "simulated cards" in check.needs


def skip_beyond_reference(item: pytest.Item) -> None:
    """Without a matrix, and so without a probe: skip a test whose markers ask for more than the reference cell."""
    matrix = list(item.iter_markers("llm_matrix"))
    if not all(selector_of(mark).matches(REFERENCE) for mark in matrix):
        item.add_marker(pytest.mark.skip(reason=NOT_REQUESTED.format(marker=_written(matrix))))
    requires = list(item.iter_markers("llm_requires"))
    if not all(_met_by_reference(requirements_of(mark)) for mark in requires):
        item.add_marker(pytest.mark.skip(reason=NOT_REQUESTED.format(marker=_written(requires))))


def _met_by_reference(requirements: Requirements) -> bool:
    only_packages = replace(requirements, packages=()) == Requirements(kinds=requirements.kinds)
    return only_packages and (not requirements.kinds or REFERENCE.kind in requirements.kinds)


def selector_of(mark: pytest.Mark) -> Selector:
    """The selector that an `llm_matrix` marker stands for.

    Raises:
        pytest.UsageError: a positional argument, or a keyword that is no axis.
    """
    if mark.args:
        raise pytest.UsageError(f"llm_matrix takes keywords only ({', '.join(AXIS_KEYS)}), got {mark.args!r}")
    patterns: dict[str, Sequence[str]] = {}
    for key, value in mark.kwargs.items():
        if key not in AXIS_KEYS:
            raise pytest.UsageError(f"marker llm_matrix: {unknown('keyword', key, AXIS_KEYS)}")
        patterns[AXIS_KEYS[key]] = (value,) if isinstance(value, str) else tuple(value)
    return Selector.of(patterns)


def requirements_of(mark: pytest.Mark) -> Requirements:
    """The needs that an `llm_requires` marker states; `memory` may be written as `"8GiB"`.

    Raises:
        pytest.UsageError: an unknown keyword or a value that does not fit.
    """
    values = dict(mark.kwargs)
    try:
        if mark.args:
            raise ConfigurationError(f"takes keywords only ({', '.join(_REQUIREMENTS)}), got {mark.args!r}")
        for key in values:
            if key not in _REQUIREMENTS:
                raise ConfigurationError(unknown("keyword", key, _REQUIREMENTS))
        if isinstance(values.get("memory"), str):
            values["memory"] = parse_memory(values["memory"])
        for key in ("kinds", "packages"):
            if key in values:
                values[key] = (values[key],) if isinstance(values[key], str) else tuple(values[key])
        return Requirements(**values)
    except (TypeError, ConfigurationError) as error:
        raise pytest.UsageError(f"marker llm_requires: {error}") from None


def skip_unmet(item: pytest.Item, cell: Cell, run: MatrixRun) -> None:
    """Skip `item` when one of its `llm_requires` markers asks for more than the machine has."""
    for mark in item.iter_markers("llm_requires"):
        if reason := unmet(requirements_of(mark), cell, run.inventory):
            item.add_marker(pytest.mark.skip(reason=reason))


def expect_failure(item: pytest.Item, cell: Cell, run: MatrixRun) -> None:
    """Mark a test of the suite that the matrix expects to fail; a pass is then a failure, the entry being stale."""
    for mark in item.iter_markers("llm_check"):
        if reason := run.xfail(cell, mark.args[0]):
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def cell_of(item: pytest.Item) -> Cell | None:
    """The cell that `item` runs on, None for a test without one."""
    callspec = getattr(item, "callspec", None)
    cell = callspec.params.get(FIXTURE) if callspec is not None else None
    return cell if isinstance(cell, Cell) else None


def cell_id_in(nodeid: str, cell_ids: frozenset[str]) -> str | None:
    """The cell that a test with this node id runs on, None for a test without one."""
    parameters = nodeid.partition("[")[2].removesuffix("]")
    if parameters in cell_ids:
        return parameters
    # Stacked parameters are joined by "-", which cell ids contain too.
    inside = [cell_id for cell_id in cell_ids if cell_id in parameters] if parameters else []
    return max(inside, key=len, default=None)


def check_of(item: pytest.Item) -> str:
    """The name under which results of `item` are kept: of its check, or `module::Class::test` of a test of one's own.

    Never the node id: that has the path, and the cell. Other parameters than the cell stay.
    """
    for mark in item.iter_markers("llm_check"):
        return str(mark.args[0])
    names = [part.name for part in item.listchain() if isinstance(part, pytest.Class)]
    module = item.getparent(pytest.Module)
    path = module.obj.__name__ if module is not None else item.path.stem
    cell = cell_of(item)
    of_item = item.callspec.id if isinstance(item, pytest.Function) and cell is not None else ""
    before, _, after = of_item.partition(cell.id if cell is not None else "-")
    others = "-".join(part for part in (before.rstrip("-"), after.lstrip("-")) if part)
    parameters = f"[{others}]" if others else ""
    return "::".join((path, *names, f"{getattr(item, 'originalname', item.name)}{parameters}"))


def user_properties(cell: Cell, run: MatrixRun) -> dict[str, Any]:
    """Flat `llm.*` properties of a cell; of a simulated one, the machine that was simulated too."""
    profile = {"llm.profile": str(run.simulated_machines.profile(cell))} if cell.simulated else {}
    return profile | {"llm.cell": cell.id} | {f"llm.{name}": value for name, value in cell.values().items()}


def _written(marks: Iterable[pytest.Mark]) -> str:
    return ", ".join(
        f"{mark.name}({', '.join(f'{key}={value!r}' for key, value in mark.kwargs.items())})" for mark in marks
    )
