"""Notices when the code under test ends the process of pytest, or returns into it from a process that it forked."""

from __future__ import annotations

import ctypes
import faulthandler
import os
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_llmdevice.plugin.parametrize import cell_of
from pytest_llmdevice.plugin.watchdog import real_stderr

if TYPE_CHECKING:
    from pytest_llmdevice.plugin.session import MatrixRun

_end_process = os._exit
ENDING: Final = ("_exit", "execv", "execve")
"""Functions of `os` that leave nothing of a process; the other forms of exec call one of these."""


class ProcessGuard:
    """The hooks around the tests of cells. Processes that the code under test forks may end as they like."""

    def __init__(self, config: pytest.Config, run: MatrixRun) -> None:
        self._run = run
        self._number = os.getpid()
        self._stderr = real_stderr()
        self._where = ""
        self._exit = CExit(self._ended_in_c)
        config.add_cleanup(lambda: os.close(self._stderr))

    def restart(self, output: int) -> None:
        """Guard a process that was forked just now, to test; its last words go to the file `output`."""
        self._number = os.getpid()
        os.dup2(output, self._stderr)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Be there while a test of a cell runs in this process."""
        cell = cell_of(item)
        if cell is None or self._run.elsewhere_runs(cell) or not self._run.decisions[cell].runs:
            return (yield)
        self._where = f"{cell.id}: {item.name}"
        replaced = {name: getattr(os, name) for name in ENDING}
        for name, function in replaced.items():
            setattr(os, name, self._said(name, function))
        self._exit.arm()
        try:
            return (yield)
        finally:
            self._end_fork()
            # Before it is disarmed, which calls it.
            self._where = ""
            self._exit.disarm()
            for name, function in replaced.items():
                setattr(os, name, function)

    # Innermost: nothing else runs in a process that must not be here.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_fixture_setup(self) -> Generator[None, object, object]:
        """End a process that was forked in a fixture."""
        try:
            return (yield)
        finally:
            self._end_fork()

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        """End a process that was forked in a test."""
        try:
            return (yield)
        finally:
            self._end_fork()

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        """End a process that was forked in a teardown."""
        try:
            return (yield)
        finally:
            self._end_fork()

    def _end_fork(self) -> None:
        if self._where and os.getpid() != self._number:
            self._say(
                f"{self._where}: a process that was forked there returned into pytest, and is ended; a forked process "
                "must end with os._exit",
                stack=False,
            )
            _end_process(1)

    def _said(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def ending(*arguments: Any, **keywords: Any) -> Any:
            if not self._where or os.getpid() != self._number:
                return function(*arguments, **keywords)
            first = next(iter((*arguments, *keywords.values())), "")
            shown = os.fsdecode(first) if isinstance(first, bytes) else first
            self._say(f"{self._where} ended the process of pytest: it called os.{name}({shown!r})")
            code = first if isinstance(first, int) else 0
            # A run that ended there is not green; and what would come in its place is no run.
            return _end_process(code if code & 0xFF else 1)

        return ending

    def _ended_in_c(self) -> None:
        if self._where and os.getpid() == self._number:
            self._say(f"{self._where} ended the process of pytest: exit was called in C")
            _end_process(1)

    def _say(self, text: str, *, stack: bool = True) -> None:
        with suppress(OSError):
            os.write(self._stderr, f"\n{text}\n".encode(errors="replace"))
            if stack:
                faulthandler.dump_traceback(self._stderr, all_threads=False)


class CExit:
    """Calls a function when `exit` is called in C while it is armed.

    Handlers of `exit` run after the interpreter's end too, where no function of Python can: so they are taken away
    again between tests, which needs glibc.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self._libc: Any = None
        self._callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: function())
        # What handlers are taken away by: an address of ours.
        self._owner = ctypes.create_string_buffer(8)
        with suppress(Exception):
            libc = ctypes.CDLL(None)
            if all(hasattr(libc, name) for name in ("gnu_get_libc_version", "__cxa_atexit", "__cxa_finalize")):
                self._libc = libc

    def arm(self) -> None:
        """Have the function called by an `exit` from now on."""
        if self._libc is not None:
            self._libc["__cxa_atexit"](self._callback, None, self._owner)

    def disarm(self) -> None:
        """Take it away; it is called once, by the only way to do so."""
        if self._libc is not None:
            self._libc["__cxa_finalize"](self._owner)
