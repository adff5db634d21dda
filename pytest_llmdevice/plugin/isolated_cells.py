"""`--llm-isolate`: has the tests of each cell, or of all cells of a device, run in a forked process of their own."""

from __future__ import annotations

import sys
import threading
import time
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

import pytest

from pytest_llmdevice.matrix.ranks import ranks_of
from pytest_llmdevice.plugin.cards_unused import IN_USE, answer_without_using, cards_in_use, import_without_using
from pytest_llmdevice.plugin.failures import DETAILS
from pytest_llmdevice.plugin.isolated_child import IsolatedChild
from pytest_llmdevice.plugin.isolated_process import IsolatedProcess, last_lines
from pytest_llmdevice.plugin.parametrize import cell_of

if TYPE_CHECKING:
    from pytest_llmdevice.matrix.cell import Cell
    from pytest_llmdevice.plugin.session import MatrixRun

MARGIN_SECONDS: Final = 30.0
"""How long after a process should have ended itself, its time being over, it is killed."""

TEARDOWN_SECONDS: Final = 30.0
"""How long a process may take to tear down what it holds when the session ends early."""

Group = tuple[str, ...]
Phase = Literal["setup", "call", "teardown"]

_AFTER: Final[dict[str, Phase]] = {"setup": "call", "call": "teardown"}


class IsolatedItems:
    """The hooks that hand tests over; registered with `--llm-isolate cell` or `device`."""

    def __init__(self, config: pytest.Config, run: MatrixRun) -> None:
        self._config = config
        self._run = run
        self._by_device = run.settings.isolate == "device"
        self._process: IsolatedProcess | None = None
        self._group: Group = ()
        self._dead: dict[Cell, str] = {}
        self._indices: dict[pytest.Item, int] = {}
        self._threads = 0
        run.hands_over = True
        config.add_cleanup(answer_without_using())
        config.add_cleanup(self._close)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Bring the cells of a device together."""
        if self._by_device:
            order: dict[Group, int] = {}
            keys: list[int] = []
            for item in items:
                group = self._group_of(cell_of(item))
                # A test without a cell stays behind the one before it.
                keys.append(order.setdefault(group, len(order)) if group else (keys[-1] if keys else -1))
            items[:] = [item for _, item in sorted(zip(keys, items, strict=True), key=lambda pair: pair[0])]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Know each test by a number, and how many threads there are before any test has run."""
        self._indices = {item: index for index, item in enumerate(session.items)}
        self._threads = _native_threads()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Have another process run a test of a cell, and report it here as if it had run here."""
        cell = cell_of(item)
        if cell is None or not self._hands_over(cell):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        if cell in self._dead:
            where = self._dead[cell]
            self._fail(
                item, "setup", f"{cell.id}: not run: the process of this cell died in {where}", {"aborted": True}
            )
        else:
            self._hand_over(item, cell, self._following(self._group_of(cell), nextitem))
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Tear down what tests here have left for a test that ran elsewhere."""
        if self._run.hands_over:
            item.session._setupstate.teardown_exact(item)  # noqa: SLF001  # as pytest does after each test

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_timeout_set_timer(self, item: pytest.Item) -> bool | None:
        """Leave the limits of pytest-timeout to the process that runs the test."""
        cell = cell_of(item)
        return True if cell is not None and self._hands_over(cell) else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """End the process of a session that is cut short."""
        self._close()

    def _hands_over(self, cell: Cell) -> bool:
        # Cells of several ranks have their own processes, see `ranked_cells`.
        return self._run.hands_over and self._run.decisions[cell].runs and ranks_of(cell) == 1

    def _hand_over(self, item: pytest.Item, cell: Cell, following: pytest.Item | None) -> None:
        left = pytest.CallInfo.from_call(
            partial(item.session._setupstate.teardown_exact, item),  # noqa: SLF001  # as above
            when="setup",
            reraise=(KeyboardInterrupt, pytest.exit.Exception),
        )
        if left.excinfo is not None:
            item.ihook.pytest_runtest_logreport(report=item.ihook.pytest_runtest_makereport(item=item, call=left))
        if self._process is None and cards_in_use(cell):
            self._fail(item, "setup", f"{cell.id}: {IN_USE}", {"aborted": True})
            return
        try:
            process = self._process_of(self._group_of(cell), item.session)
        except OSError as error:
            self._fail(item, "setup", f"{cell.id}: no process could be forked for it: {error}", {"aborted": True})
            return
        process.send("run", self._indices[item], None if following is None else self._indices[following])
        if not self._listen(process, item, cell) or following is None:
            self._close()

    def _listen(self, process: IsolatedProcess, item: pytest.Item, cell: Cell) -> bool:
        """Report what `process` says of `item`; whether it came to the end of it."""
        when: Phase = "setup"
        held: pytest.TestReport | None = None
        limit: float | None = None
        while (message := process.receive()) is not None:
            what, *values = message
            if what == "report":
                report = self._config.hook.pytest_report_from_serializable(config=self._config, data=values[0])
                # The report of a teardown is kept until nothing else can happen to the test.
                held = self._log(item, held)
                held = report if report.when == "teardown" else self._log(item, report)
                if type(report) is pytest.TestReport and report.nodeid == item.nodeid:
                    when = _AFTER.get(report.when, "teardown") if report.passed else "teardown"
                session = item.session
                process.send(str(session.shouldfail or ""), str(session.shouldstop or ""))
            elif what == "limit":
                limit = None if values[0] is None else time.monotonic() + values[0]
                process.deadline = None if limit is None else limit + MARGIN_SECONDS
            elif what == "warning":
                record_warning(self._config, *values)
            else:
                self._log(item, held)
                if what == "finished":
                    import_without_using(values[0])
                    return True
                stop_with(what, *values)
        self._dead[cell] = item.name
        over = limit is not None and time.monotonic() > limit
        details = {"aborted": True} | ({"failure": "time-out"} if over or process.killed else {})
        self._fail(item, when, self._told_of(process, item, cell, when), details)
        return False

    @staticmethod
    def _log(item: pytest.Item, report: pytest.TestReport | None) -> None:
        if report is not None:
            item.ihook.pytest_runtest_logreport(report=report)

    def _told_of(self, process: IsolatedProcess, item: pytest.Item, cell: Cell, when: Phase) -> str:
        """How the process died, where, and what it has left."""
        where = item.name if when == "call" else f"the {when} of {item.name}"
        said = f"{cell.id}: its process {process.ending()}, in {where}"
        words, printed = process.last_words(), last_lines(self._captured()) or process.printed()
        stack = f"\n\nWhat the process left behind:\n{words}" if words else ""
        return f"{said}{stack}" + (f"\n\nThe last lines that it printed:\n{printed}" if printed else "")

    def _captured(self) -> str:
        # With --capture=fd both processes write into one file.
        manager: Any = self._config.pluginmanager.getplugin("capturemanager")
        if manager is None or not manager.is_globally_capturing():
            return ""
        return "".join(manager.read_global_capture())

    def _fail(self, item: pytest.Item, when: Phase, text: str, details: dict[str, Any]) -> None:
        """Report that `item` failed in a phase that nobody can report any more."""
        failed = report_of(item, when, "failed", text)
        vars(failed)[DETAILS] = details
        self._log(item, failed)
        if when != "teardown":
            # By the last phase reporters know that the test is over.
            self._log(item, report_of(item, "teardown", "passed", None))

    def _process_of(self, group: Group, session: pytest.Session) -> IsolatedProcess:
        if self._process is not None and self._group != group:
            self._close()
        if self._process is None:
            self._before_the_first(session)
            self._process = IsolatedProcess(
                lambda pipe, words, printed: IsolatedChild(session, self._run, pipe, words, printed).serve()
            )
            self._group = group
        return self._process

    def _before_the_first(self, session: pytest.Session) -> None:
        before_a_fork(session.config)
        if _native_threads() > self._threads:
            # A test here has used PyTorch's threads. They are not forked, and whoever gives them work waits for ever.
            import torch

            torch.set_num_threads(1)

    def _following(self, group: Group, nextitem: pytest.Item | None) -> pytest.Item | None:
        """The test that the process of `group` will be asked for next, None where it can end."""
        if nextitem is None:
            return None
        if self._group_of(cell_of(nextitem)) == group:
            return nextitem
        if cell_of(nextitem) is not None or hasattr(self._config, "workerinput"):
            return None
        items = nextitem.session.items
        after = (each for each in items[self._indices[nextitem] :] if cell_of(each) is not None)
        following = next(after, None)
        return following if following is not None and self._group_of(cell_of(following)) == group else None

    def _group_of(self, cell: Cell | None) -> Group:
        if cell is None:
            return ()
        return (cell.device, str(cell.simulated)) if self._by_device else (cell.id,)

    def _close(self) -> None:
        process, self._process = self._process, None
        if process is not None and self._run.hands_over:
            process.send("end")
            process.close(TEARDOWN_SECONDS)


def record_warning(
    config: pytest.Config,
    message: Warning,
    category: type[Warning],
    file: str,
    line: int,
    when: str,
    nodeid: str,
    location: Any,
) -> None:
    """Tell pytest of a warning that another process was given."""
    recorded = warnings.WarningMessage(message=message, category=category, filename=file, lineno=line)
    config.hook.pytest_warning_recorded.call_historic(
        kwargs={"warning_message": recorded, "when": when, "nodeid": nodeid, "location": location}
    )


def stop_with(what: str, *values: Any) -> NoReturn:
    """End the session as a process that runs tests has asked for.

    Raises:
        KeyboardInterrupt: it was interrupted.
        pytest.exit.Exception: a test or a hook called `pytest.exit`.
        RuntimeError: something in it broke.
    """
    if what == "interrupted":
        raise KeyboardInterrupt
    if what == "exit":
        raise pytest.exit.Exception(*values)
    raise RuntimeError(f"in the process of a cell:\n{values[0]}")


def before_a_fork(config: pytest.Config) -> None:
    """Make what all processes share, and leave nothing behind that two would write."""
    # One folder for the temporary files of all processes.
    factory: Any = getattr(config, "_tmp_path_factory", None)
    if factory is not None:
        factory.getbasetemp()
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    for flush in (sys.stdout.flush, sys.stderr.flush, getattr(reporter, "flush", lambda: None)):
        # What lies in a buffer would be written by both.
        with suppress(Exception):
            flush()


def report_of(
    item: pytest.Item, when: Phase, outcome: Literal["passed", "failed"], text: str | None
) -> pytest.TestReport:
    """The report of a phase of `item` that nobody can report any more."""
    keywords: dict[str, Literal[1]] = dict.fromkeys(item.keywords, 1)
    return pytest.TestReport(
        item.nodeid, item.location, keywords, outcome, text, when, user_properties=item.user_properties
    )


def _native_threads() -> int:
    """How many threads there are that Python does not know of; 0 where that cannot be seen."""
    try:
        return len(list(Path("/proc/self/task").iterdir())) - threading.active_count()
    except OSError:
        return 0
