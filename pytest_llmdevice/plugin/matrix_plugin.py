"""Implements the hooks of a run with `--llm-matrix`; registered only then, so that the plugin is inert otherwise."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmdevice.hardware import Inventory, describe
from pytest_llmdevice.plugin.again import SUITE, of_suite
from pytest_llmdevice.plugin.crash_marker import CrashMarker
from pytest_llmdevice.plugin.failures import CellSkipped, DeviceLost, detail, details_of, make_harmless
from pytest_llmdevice.plugin.fixtures import RUN
from pytest_llmdevice.plugin.honesty import PARTS, HonestItems, refuse_missing_parts
from pytest_llmdevice.plugin.load_log import attach_log
from pytest_llmdevice.plugin.options import usage_errors
from pytest_llmdevice.plugin.parametrize import FIXTURE, Parameters, cell_of, check_of
from pytest_llmdevice.plugin.process_guard import ProcessGuard
from pytest_llmdevice.plugin.raised import RaisedInItems
from pytest_llmdevice.plugin.registration import Registration
from pytest_llmdevice.plugin.results_plugin import RecordedItems
from pytest_llmdevice.plugin.session import WORKER_INPUT, MatrixRun
from pytest_llmdevice.plugin.summary import plan_line, target_line
from pytest_llmdevice.plugin.timeout_plugin import LimitedItems
from pytest_llmdevice.results.cleaning import clean
from pytest_llmdevice.text import harmless

if TYPE_CHECKING:
    from pytest_llmdevice.plugin.options import Settings


def begin(config: pytest.Config, settings: Settings) -> None:
    """Start a run: the probe, the matrix, the hooks; and add the suite when no path was given.

    Raises:
        pytest.UsageError: the matrix is no good.
    """
    known = getattr(config, "workerinput", {}).get(WORKER_INPUT)
    with usage_errors():
        # First: the matrix and the probe may speak of what plugins add.
        registration = Registration(config)
        run = MatrixRun.begin(settings, Inventory.from_json(known) if known else None)
    config.add_cleanup(run.close)
    config.stash[RUN] = run
    config.args = [of_suite(argument, config) for argument in config.args]
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args.append(str(SUITE))
    parts: dict[str, object] = {
        "llmdevice-matrix": MatrixPlugin(config, run, registration),
        "llmdevice-honest": HonestItems(),
    }
    if known is None and not config.option.collectonly:
        parts["llmdevice-recorded"] = RecordedItems(config, run)
    if not config.option.collectonly:
        parts["llmdevice-raised"] = RaisedInItems(config)
        parts["llmdevice-guard"] = ProcessGuard(config, run)
        parts["llmdevice-marker"] = CrashMarker(config, run)
    if settings.cell_timeout:
        parts["llmdevice-limited"] = LimitedItems(config, run)
    if settings.isolate != "none" and not config.option.collectonly:
        from pytest_llmdevice.plugin.isolated_cells import IsolatedItems

        parts["llmdevice-isolated"] = IsolatedItems(config, run)
    if not config.option.collectonly:
        from pytest_llmdevice.plugin.ranked_cells import RankedItems

        # After the others: its hooks come first.
        parts["llmdevice-ranked"] = RankedItems(config, run)
    if settings.simulate:
        from pytest_llmdevice.plugin.simulation_plugin import SimulatedItems

        parts["llmdevice-simulated"] = SimulatedItems(run)
    if config.pluginmanager.hasplugin("xdist"):
        from pytest_llmdevice.plugin.xdist_plugin import Distribution

        parts["llmdevice-xdist"] = Distribution(config, run)
    for name, part in parts.items():
        config.pluginmanager.register(part, name)
    config.stash[PARTS] = ("llmdevice-fixtures", *parts)
    refuse_missing_parts(config)


VERDICT = "llm.verdict"
"""User property of a test whose cell does not run here: the cause."""


def share_cores(workers: int) -> None:
    """Give this worker its share of the cores, unless the user has set the number of threads.

    Worker processes that each use every core wait for one another in every small operation: two workers on two
    cores were four times as slow as one.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(max(1, torch.get_num_threads() // workers))


class MatrixPlugin:
    """The hooks of an active run."""

    def __init__(self, config: pytest.Config, run: MatrixRun, registration: Registration) -> None:
        self._run = run
        self._registration = registration
        self._parameters = Parameters(run)
        self._lost: dict[tuple[str, str], str] = {}
        self._workers: int = getattr(config, "workerinput", {}).get("workercount", 1)
        distributes = not hasattr(config, "workerinput") and bool(config.getoption("tx", None))
        self._loads = not distributes and not config.option.collectonly

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        if self._workers > 1:
            share_cores(self._workers)
        with usage_errors():
            self._run.prepare(warm=self._loads)

    def pytest_report_header(self) -> list[str]:
        inventory = self._run.inventory
        devices = [*describe(inventory), *self._run.simulated_machines.describe(inventory)]
        lines = (target_line(self._run), plan_line(self._run), *(f"  {line}" for line in devices))
        return [harmless(line) for line in lines]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if FIXTURE in metafunc.fixturenames:
            self._parameters.apply(metafunc)

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        cell = cell_of(item)
        if cell is not None:
            self._parameters.label(item, cell)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        kept: list[pytest.Item] = []
        left_out: list[pytest.Item] = []
        for item in items:
            cell = cell_of(item)
            (kept if cell is None or self._run.requested(cell) else left_out).append(item)
            if cell is not None:
                self._parameters.mark(item, cell)
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = kept

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self) -> None:
        with usage_errors():
            self._registration.refuse_late_ones()
        self._run.settle()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        # Raised here and not a marker: pytest then folds the skips of a device into one line of `-rs`.
        cell = cell_of(item)
        if cell is None:
            return
        if not (decision := self._run.decisions[cell]).runs:
            item.user_properties.append((VERDICT, decision.cause))
            raise CellSkipped(decision.cause, decision.detail)
        if where := self._lost.get((cell.kind, cell.device)):
            raise DeviceLost(f"{cell.id}: not run: {cell.spec} was lost in {where}, and is so for the whole process")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        cell = cell_of(item)
        if cell is not None:
            make_harmless(report, colours=item.config.get_terminal_writer().hasmarkup)
            attach_log(item, cell, report)
            detail(item, call, report, self._run.target, declared=self._run.xfail(cell, check_of(item)))
            if not cell.simulated and details_of(report).get("failure") == "device-lost":
                self._lost.setdefault((cell.kind, cell.device), item.name)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_report_to_serializable(self) -> Generator[None, Any, Any]:
        # What xdist cannot carry ends its worker, and reportlog's file the run.
        return clean((yield), numbers=False)

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        # Thousands of letters for cells that cannot run here would hide those that do; they are counted at the end.
        if report.skipped and any(key == VERDICT for key, _ in report.user_properties):
            return "skipped", "", "SKIPPED"
        return None
