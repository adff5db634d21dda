"""Has several forked processes run the tests of a cell that they load together, and reports them as one.

Each rank runs the same tests in the same order, and is at the same place of a collective when the others are. Where
they fall apart, one waits for another that is elsewhere: then all are ended, and the test says in which stacks they
were.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

import pytest

from pytest_llmdevice.matrix.ranks import of_rank, ranks_of
from pytest_llmdevice.monitoring.ranks import Together
from pytest_llmdevice.plugin.cards_unused import IN_USE, answer_without_using, cards_in_use, import_without_using
from pytest_llmdevice.plugin.failures import DETAILS
from pytest_llmdevice.plugin.isolated_cells import TEARDOWN_SECONDS, before_a_fork, record_warning, report_of, stop_with
from pytest_llmdevice.plugin.isolated_process import IsolatedProcess, last_lines
from pytest_llmdevice.plugin.parametrize import cell_of
from pytest_llmdevice.plugin.ranked_child import RankedChild
from pytest_llmdevice.plugin.ranked_reports import merged, named

if TYPE_CHECKING:
    from pytest_llmdevice.matrix.cell import Cell
    from pytest_llmdevice.plugin.session import MatrixRun

APART_SECONDS: Final = 60.0
"""How long a rank may take for a test that another rank has come to the end of, before it counts as stuck."""

SILENT_SECONDS: Final = 600.0
"""How long all ranks may say nothing at all."""

POLL_SECONDS: Final = 0.2

Phase = Literal["setup", "call", "teardown"]


class RankedItems:
    """The hooks that hand over the tests of cells whose strategy has several ranks."""

    def __init__(self, config: pytest.Config, run: MatrixRun) -> None:
        self._config = config
        self._run = run
        self._ranks: list[IsolatedProcess] = []
        self._cell: Cell | None = None
        self._dead: dict[Cell, str] = {}
        self._indices: dict[pytest.Item, int] = {}
        run.forks_ranks = True
        config.add_cleanup(self._close)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put cells of several ranks on real cards first: once this process has used a card, no fork of it can."""
        first = [item for item in items if (cell := cell_of(item)) and not cell.simulated and ranks_of(cell) > 1]
        if first:
            self._config.add_cleanup(answer_without_using())
            ranked = set(first)
            items[:] = [*first, *(item for item in items if item not in ranked)]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Know each test by a number."""
        self._indices = {item: index for index, item in enumerate(session.items)}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Have the ranks run a test of their cell, and report it here as one."""
        cell = cell_of(item)
        if cell is None or not self._run.forks_ranks or ranks_of(cell) == 1 or not self._run.decisions[cell].runs:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        if cell in self._dead:
            where = self._dead[cell]
            self._fail(item, "setup", f"{cell.id}: not run: its ranks were ended in {where}", {"aborted": True})
        else:
            following = nextitem if nextitem is not None and cell_of(nextitem) == cell else None
            self._hand_over(item, cell, following)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_timeout_set_timer(self, item: pytest.Item) -> bool | None:
        """Leave the limits of pytest-timeout to the processes that run the test."""
        cell = cell_of(item)
        return True if cell is not None and self._run.forks_ranks and ranks_of(cell) > 1 else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """End the processes of a session that is cut short."""
        self._close()

    def _hand_over(self, item: pytest.Item, cell: Cell, following: pytest.Item | None) -> None:
        # What tests here have left is torn down before another process begins.
        left = pytest.CallInfo.from_call(
            partial(item.session._setupstate.teardown_exact, item),  # noqa: SLF001  # as pytest does after each test
            when="setup",
            reraise=(KeyboardInterrupt, pytest.exit.Exception),
        )
        if left.excinfo is not None:
            item.ihook.pytest_runtest_logreport(report=item.ihook.pytest_runtest_makereport(item=item, call=left))
        if not self._ranks and cards_in_use(cell):
            self._fail(item, "setup", f"{cell.id}: {IN_USE}", {"aborted": True})
            return
        try:
            ranks = self._ranks_of(cell, item.session)
        except (OSError, ValueError) as error:
            # The second where the system cannot fork at all.
            self._fail(item, "setup", f"{cell.id}: no processes could be forked for it: {error}", {"aborted": True})
            return
        for rank in ranks:
            rank.send("run", self._indices[item], None if following is None else self._indices[following])
        turn = _Turn(self._config, item, ranks)
        turn.listen()
        self._conclude(turn, item, cell)
        if following is None or turn.fallen or turn.stopped:
            self._close()
        if turn.stopped:
            stop_with(*turn.stopped)

    def _conclude(self, turn: _Turn, item: pytest.Item, cell: Cell) -> None:
        """Report what all ranks have said of `item`, and how they ended if they did."""
        ids = [of_rank(cell, rank).id for rank in range(ranks_of(cell))]
        reports = merged(turn.reports, ranks_of(cell), ids)
        if turn.fallen:
            self._dead[cell] = item.name
            # What a rank found before it fell counts; that it passed does not.
            for report in reports:
                if report.failed and report.when != "teardown":
                    item.ihook.pytest_runtest_logreport(report=report)
                    when: Phase = "teardown"
                    break
            else:
                when = "call"
            self._fail(item, when, self._told_of(turn, item, cell), turn.details)
            return
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)

    def _told_of(self, turn: _Turn, item: pytest.Item, cell: Cell) -> str:
        """Which ranks fell, how, where they were, and what they have left."""
        words = [f"{cell.id}: {turn.why}, in {item.name}"]
        for number, rank in enumerate(self._ranks):
            if number in turn.done:
                words.append(f"{named([number], len(self._ranks))} had come to the end of the test")
                continue
            stack, printed = rank.last_words(), last_lines(rank.printed())
            words.append(
                f"{named([number], len(self._ranks))} {rank.ending()}"
                + (f"\nWhat it left behind:\n{stack}" if stack else "")
                + (f"\nThe last lines that it printed:\n{printed}" if printed else "")
            )
        return "\n\n".join(words)

    def _fail(self, item: pytest.Item, when: Phase, text: str, details: dict[str, Any]) -> None:
        failed = report_of(item, when, "failed", text)
        vars(failed)[DETAILS] = details
        item.ihook.pytest_runtest_logreport(report=failed)
        if when != "teardown":
            # By the last phase reporters know that the test is over.
            item.ihook.pytest_runtest_logreport(report=report_of(item, "teardown", "passed", None))

    def _ranks_of(self, cell: Cell, session: pytest.Session) -> list[IsolatedProcess]:
        if self._ranks and self._cell != cell:
            self._close()
        if not self._ranks:
            before_a_fork(session.config)
            together = Together.of(ranks_of(cell))
            self._cell = cell
            with _one_thread():
                for number in range(together.size):
                    self._ranks.append(IsolatedProcess(partial(_serve, session, self._run, together, number)))
        return self._ranks

    def _close(self) -> None:
        ranks, self._ranks = self._ranks, []
        if self._run.forks_ranks:
            for rank in ranks:
                rank.send("end")
            for rank in ranks:
                rank.close(TEARDOWN_SECONDS)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Fork where PyTorch has one thread: others are not forked, and whoever gives them work waits for ever."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _serve(session: pytest.Session, run: MatrixRun, together: Together, rank: int, *given: Any) -> NoReturn:
    RankedChild(session, run, *given, together=together, rank=rank).serve()


class _Turn:
    """One test in all ranks: what they say of it.

    Attributes:
        reports: rank -> its reports.
        done: the ranks that came to the end of the test.
        fallen: whether they did not all do so.
        why: how that came, the middle of a sentence.
        details: what a record needs to know of that.
        stopped: whether a rank ends the session.
    """

    def __init__(self, config: pytest.Config, item: pytest.Item, ranks: list[IsolatedProcess]) -> None:
        self._config = config
        self._item = item
        self._ranks = ranks
        self.reports: dict[int, list[pytest.TestReport]] = {number: [] for number in range(len(ranks))}
        self.done: set[int] = set()
        self.fallen = False
        self.why = ""
        self.details: dict[str, Any] = {}
        self.stopped: tuple[Any, ...] = ()

    def listen(self) -> None:
        """Hear the ranks until all have come to the end of the test, or one has fallen."""
        heard = first_done = time.monotonic()
        while len(self.done) < len(self._ranks):
            waiting = [rank for number, rank in enumerate(self._ranks) if number not in self.done]
            wait([handle for rank in waiting for handle in rank.handles], POLL_SECONDS)
            for number, rank in enumerate(self._ranks):
                if number in self.done or not rank.has_news():
                    continue
                heard = time.monotonic()
                message = rank.receive()
                if message is None:
                    late: dict[str, Any] = {"failure": "time-out"} if rank.killed else {}
                    self._fall(f"{named([number], len(self._ranks))} {rank.ending()}", late)
                    return
                if self._take(number, message):
                    first_done = heard if not self.done else first_done
                    self.done.add(number)
            now = time.monotonic()
            apart = self.done and now - first_done > APART_SECONDS
            if apart or now - heard > SILENT_SECONDS:
                stuck = [number for number in range(len(self._ranks)) if number not in self.done]
                self._fall(f"{named(stuck, len(self._ranks))} did not come to the end of it", {"failure": "time-out"})
                return

    def _take(self, number: int, message: tuple[Any, ...]) -> bool:
        """Take in what a rank says; whether it has come to the end of the test."""
        what, *values = message
        rank = self._ranks[number]
        if what == "report":
            report = self._config.hook.pytest_report_from_serializable(config=self._config, data=values[0])
            self.reports[number].append(report)
            session = self._item.session
            rank.send(str(session.shouldfail or ""), str(session.shouldstop or ""))
            return False
        if what == "limit":
            rank.deadline = None if values[0] is None else time.monotonic() + values[0] + APART_SECONDS
            return False
        if what == "warning":
            if number == 0:
                # The others are given the same.
                record_warning(self._config, *values)
            return False
        if what == "finished":
            import_without_using(values[0])
        else:
            self.stopped = message
        return True

    def _fall(self, why: str, details: dict[str, Any]) -> None:
        """End all ranks: what one is alone cannot be gone on with."""
        self.fallen, self.why, self.details = True, why, {"aborted": True} | details
        for number, rank in enumerate(self._ranks):
            if number not in self.done:
                rank.kill("it did not come to the end of the test" if self.done else "it cannot go on alone")
