"""Limits the time that the load and the tests of a cell take together."""

from __future__ import annotations

import os
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Generator
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Final

import pytest

from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.diagnosis.finding import Finding
from pytest_llmdevice.plugin.failures import CheckFailed
from pytest_llmdevice.plugin.fixtures import NOT_OF_THE_CELL
from pytest_llmdevice.plugin.parametrize import cell_of
from pytest_llmdevice.plugin.watchdog import GRACE_SECONDS, Watchdog, real_stderr

if TYPE_CHECKING:
    from pytest_llmdevice.matrix.cell import Cell
    from pytest_llmdevice.plugin.session import MatrixRun

TEARDOWN: Final = "the teardown of "
"""The phase of a test in which it cleans up, as messages have it."""

TEARDOWN_SECONDS: Final = 30.0
"""What a test may still take to clean up when the time of its cell is over."""

_OUTERMOST_SHOWN = 4
_INNERMOST_SHOWN = 8


class CellTimeout(CheckFailed):
    """A cell has used up its time. No `Exception`: a target that tries again and again must not catch it."""

    __module__ = "builtins"
    failure = "time-out"


class NoTimeLeft(CellTimeout):
    """A test that was not run, because an earlier one of its cell took all the time."""

    __module__ = "builtins"
    aborted = True


class LimitedItems:
    """The hooks that keep the time of each cell; registered unless `--llm-cell-timeout` is 0."""

    def __init__(self, config: pytest.Config, run: MatrixRun) -> None:
        self._run = run
        self._seconds = run.settings.cell_timeout
        self._spent: defaultdict[Cell, float] = defaultdict(float)
        self._over: dict[Cell, str] = {}
        self._now: tuple[pytest.Item, Cell, str, float] | None = None
        self._stderr = real_stderr()
        # pytest's own use of faulthandler's one timer goes before ours.
        hard = not float(config.getini("faulthandler_timeout") or 0.0)
        self._watchdog = Watchdog(self._stderr, GRACE_SECONDS, hard=hard)
        self._told: Callable[[float | None], None] = lambda _: None
        config.add_cleanup(self._close)

    def restart(self, output: int, told: Callable[[float | None], None]) -> None:
        """Keep time in a process that was forked just now.

        Args:
            output: the file that is written to before the process is ended.
            told: called with the seconds after which the process must have ended by itself, None for no limit.
        """
        os.dup2(output, self._stderr)
        self._watchdog.restart()
        self._told = told

    def _close(self) -> None:
        self._watchdog.close()
        os.close(self._stderr)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Watch over a cell from its first test to its last, and over nothing between cells."""
        try:
            return (yield)
        finally:
            if nextitem is None or cell_of(nextitem) != cell_of(item):
                self._watchdog.stop()

    # Innermost: limits of other plugins lie around this one.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Time a setup; the tests that a cell has no time left for fail at once."""
        cell = cell_of(item)
        if cell is not None and self._spent[cell] >= self._seconds:
            raise NoTimeLeft(f"{cell.id}: not run: it had used up {self._limit_words()}{self._over.get(cell, '')}")
        return (yield from self._limited(item, cell, "the setup of "))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Time a test."""
        return (yield from self._limited(item, cell_of(item), ""))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Time a teardown."""
        return (yield from self._limited(item, cell_of(item), TEARDOWN))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
        """Leave out what does not count."""
        if fixturedef.argname not in NOT_OF_THE_CELL or self._now is None:
            return (yield)
        item, cell, phase, _ = self._now
        self._stop(resumed=False)
        try:
            return (yield)
        finally:
            self._start(item, cell, phase)

    def pytest_enter_pdb(self) -> None:
        """Whoever looks at a cell takes the time that it takes."""
        self._stop(resumed=False)

    def _limited(self, item: pytest.Item, cell: Cell | None, phase: str) -> Generator[None, object, object]:
        if cell is None or not self._run.decisions[cell].runs:
            return (yield)
        self._start(item, cell, phase)
        try:
            return (yield)
        finally:
            try:
                self._stop()
            finally:
                # Interrupted right before it had stopped: the next interruption is seconds away.
                self._stop()

    def _start(self, item: pytest.Item, cell: Cell, phase: str) -> None:
        self._now = item, cell, phase, time.monotonic()
        left = max(self._seconds - self._spent[cell], TEARDOWN_SECONDS if phase == TEARDOWN else 0.0)
        self._told(left + GRACE_SECONDS)
        self._watchdog.start(left, self._timeout, self._last_words)

    def _stop(self, *, resumed: bool = True) -> None:
        self._watchdog.stop(resumed=resumed)
        if self._now is not None:
            _, cell, _, started = self._now
            self._now = None
            self._told(None)
            self._spent[cell] += time.monotonic() - started

    def _limit_words(self) -> str:
        return f"its time limit of {self._seconds:g} seconds (--llm-cell-timeout)"

    def _timeout(self, frame: FrameType | None) -> CellTimeout:
        """What is raised where the cell is when its time is over."""
        assert self._now is not None
        item, cell, phase, _ = self._now
        doing, stack = _in_the_cell(frame)
        self._over[cell] = f" in {phase}{item.name}"
        where = doing or phase + getattr(item, "originalname", item.name)
        finding = Finding(where, f"an end within {self._seconds:g} seconds", "still running")
        result = Result("loads" if doing == "load" else _check_of(item), (finding,))
        return CellTimeout(f"{cell.id}: {self._limit_words()} is over{self._over[cell]}{_here(doing, stack)}", result)

    def _last_words(self, frame: FrameType | None) -> str:
        """What is said when the process must be ended; in another thread than the cell's."""
        if self._now is None:
            return "The time limit of a cell is over"
        item, cell, phase, _ = self._now
        return (
            f"{cell.id}: {self._limit_words()} was over {GRACE_SECONDS:g} seconds ago, in {phase}{item.name}. "
            f"What runs there does not let itself be interrupted, so the process is ended{_here(*_in_the_cell(frame))}"
        )


def _check_of(item: pytest.Item) -> str:
    return next((mark.args[0] for mark in item.iter_markers("llm_check")), getattr(item, "originalname", item.name))


def _in_the_cell(frame: FrameType | None) -> tuple[str, list[FrameType]]:
    """What the code under test was doing, empty where it was not called, and its frames, innermost last."""
    from pytest_llmdevice.inference.generation import generate_with
    from pytest_llmdevice.loading.load import Loaded

    # The functions that call the target.
    calls: dict[CodeType, str] = {
        Loaded.load.__func__.__code__: "load",  # type: ignore[attr-defined]  # of a class method
        generate_with.__code__: "generate",
    }
    frames: list[FrameType] = []
    while frame is not None and _package(frame) not in {"_pytest", "pluggy"}:
        if (doing := calls.get(frame.f_code)) is not None:
            return doing, frames[::-1]
        frames.append(frame)
        frame = frame.f_back
    return "", frames[::-1]


def _package(frame: FrameType) -> str:
    name: str = frame.f_globals.get("__name__", "")
    return name.partition(".")[0]


def _here(doing: str, stack: list[FrameType]) -> str:
    """The end of a sentence, and the way into the code under test and its innermost frames, as Python prints them."""
    still = {"load": ": the target was still loading it", "generate": ": the target was still generating"}
    lines = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in stack).format()
    left_out = len(lines) - _OUTERMOST_SHOWN - _INNERMOST_SHOWN
    if left_out > 0:
        lines[_OUTERMOST_SHOWN : _OUTERMOST_SHOWN + left_out] = [f"  ... {left_out} more\n"]
    where = f"\n\nIt was here (most recent call last):\n{''.join(lines).rstrip()}" if lines else ""
    return still.get(doing, "") + where
