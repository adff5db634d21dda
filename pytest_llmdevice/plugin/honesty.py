"""Sees to it that a test of a cell that is reported as passed was called, on that cell, and has a result."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_llmdevice.matrix.ranks import of_rank
from pytest_llmdevice.matrix.vocabulary import checks
from pytest_llmdevice.monitoring.ranks import rank_here
from pytest_llmdevice.plugin.failures import CALLED, DETAILS, RESULT, CheckFailed
from pytest_llmdevice.plugin.item_record import NEVER_CALLED, NO_RESULT, OTHERWISE
from pytest_llmdevice.plugin.overrides import other_cell
from pytest_llmdevice.plugin.parametrize import cell_of, check_of

if TYPE_CHECKING:
    from pytest_llmdevice.matrix.cell import Cell

PARTS: Final[pytest.StashKey[tuple[str, ...]]] = pytest.StashKey()
"""The names under which the parts of this plugin are registered that a run consists of."""


class HonestItems:
    """The hooks of a run in the process that runs its tests."""

    def __init__(self) -> None:
        self._loaded: set[Cell] = set()

    def pytest_llm_cell_loaded(self, cell: Cell) -> None:
        """Know that there is a model."""
        self._loaded.add(cell)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        """Refuse a test of one cell whose fixtures are of another, and see whether the test is called at all.

        Raises:
            CheckFailed: a fixture was overridden so that another cell would be tested.
        """
        cell = cell_of(pyfuncitem)
        if cell is None:
            return (yield)
        if wrong := other_cell(pyfuncitem.funcargs, cell):
            raise CheckFailed(wrong)
        function = pyfuncitem.obj
        if _is_asynchronous(function):
            # Plugins for such tests call them in ways of their own, by what kind of function they are.
            pyfuncitem.stash[CALLED] = True
            return (yield)
        pyfuncitem.obj = _noted(function, pyfuncitem)
        try:
            return (yield)
        finally:
            pyfuncitem.obj = function

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Turn a pass that nobody earned into a failure."""
        report = yield
        cell = cell_of(item)
        if cell is None:
            return report
        details = vars(report).setdefault(DETAILS, {})
        if of_rank(cell, rank_here()) in self._loaded or getattr(item, "funcargs", {}).get("llm_model") is not None:
            details["loaded"] = True
        if report.when == "call" and report.outcome == "passed" and call.excinfo is None:
            unearned = _unearned(item)
            if unearned:
                report.outcome = "failed"
                report.longrepr = f"{check_of(item)} of {cell.id}: {unearned}"
                details |= {"hollow": True} if unearned != OTHERWISE else {}
        return report

    def pytest_unconfigure(self) -> None:
        """Let the cells go."""
        self._loaded.clear()


def _unearned(item: pytest.Item) -> str:
    """Why a test that raised nothing has not passed, in words; empty where it has."""
    if not item.stash.get(CALLED, False):
        return NEVER_CALLED
    if check_of(item) not in checks():
        return ""
    result = item.stash.get(RESULT, "")
    return "" if result == "passed" else OTHERWISE if result == "failed" else NO_RESULT


def _noted(function: Callable[..., object], item: pytest.Item) -> Callable[..., object]:
    @wraps(function)
    def test(*args: object, **kwargs: object) -> object:
        __tracebackhide__ = True
        item.stash[CALLED] = True
        return function(*args, **kwargs)

    return test


def _is_asynchronous(function: Callable[..., object]) -> bool:
    inner = inspect.unwrap(function)
    return any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in (function, inner))


def refuse_missing_parts(config: pytest.Config) -> None:
    """Make sure that no part of the plugin was blocked or taken out: without it a run would say less and look the same.

    Raises:
        pytest.UsageError: `-p no:NAME`, or a conftest, has switched one off.
    """
    for name in config.stash[PARTS]:
        if not config.pluginmanager.hasplugin(name):
            raise pytest.UsageError(
                f"-p no:{name}: this part of pytest-llmdevice cannot be left out of a run with --llm-matrix, whose "
                f"results would look like those of a whole run"
            )
