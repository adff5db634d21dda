"""Distributes whole cells to the workers of pytest-xdist, and hands them the controller's inventory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdist.scheduler import LoadScopeScheduling

from pytest_llmdevice.plugin.failures import DETAILS
from pytest_llmdevice.plugin.parametrize import cell_id_in
from pytest_llmdevice.plugin.session import WORKER_INPUT

if TYPE_CHECKING:
    import pytest
    from xdist.workermanage import WorkerController

    from pytest_llmdevice.plugin.session import MatrixRun


class Distribution:
    """The hooks that xdist calls on the controller."""

    def __init__(self, config: pytest.Config, run: MatrixRun) -> None:
        self._run = run
        self._config = config

    def pytest_configure_node(self, node: WorkerController) -> None:
        node.workerinput[WORKER_INPUT] = self._run.inventory.to_json()

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
        # `-n` alone means "load". Another mode was asked for by name, and is left alone.
        if config.getoption("dist") != "load":
            return None
        return CellScheduling(config, log, frozenset(cell.id for cell in self._run.cells))

    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport, sched: Any) -> None:
        """Report the tests of the cell that nobody will run now."""
        for nodeid in getattr(sched, "lost", ()):
            text = f"not run: the worker of this cell died in {crashitem}"
            file, _, name = nodeid.partition("::")
            lost = type(report)(nodeid, (file, None, name), {}, "failed", text, "setup")
            vars(lost)["node"] = vars(report)["node"]
            vars(lost)[DETAILS] = {"aborted": True}
            self._config.hook.pytest_runtest_logreport(report=lost)


class CellScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """All tests of a cell go to one worker, so that the cell is loaded once; every other test goes by itself.

    Not `--dist loadgroup`: on pytest 9.2 with xdist 3.8 it stops grouping (pytest-xdist#1386), and loads
    multiply in silence.
    """

    def __init__(self, config: pytest.Config, log: Any, cell_ids: frozenset[str]) -> None:
        super().__init__(config, log)
        self._cell_ids = cell_ids
        self.lost: list[str] = []

    def remove_node(self, node: WorkerController) -> str | None:
        """Take a worker away that is done or has died; return the test that it died in.

        xdist would have that test run again on the next worker, and the rest of its cell after it: a cell that ends
        one process would end them all, each after its time limit.
        """
        units: dict[str, dict[str, bool]] = self.assigned_work.pop(node)
        pending = {scope: unit for scope, unit in units.items() if not all(unit.values())}
        crashed = None
        if pending:
            # Units are worked through in the order in which they were handed out.
            unit = pending.pop(next(iter(pending)))
            crashed, *self.lost = (nodeid for nodeid, done in unit.items() if not done)
            self.workqueue.update(pending)
            for other in self.assigned_work:
                self._reschedule(other)
        return crashed

    def _split_scope(self, nodeid: str) -> str:
        return cell_id_in(nodeid, self._cell_ids) or nodeid
