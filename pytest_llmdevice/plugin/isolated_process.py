"""Forks a process for cells, talks to it, notices how it ends, and says so: the parent's side of `isolated_child`."""

from __future__ import annotations

import os
import pickle
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, Final, NoReturn

from pytest_llmdevice.monitoring.forks import fork

Message = tuple[Any, ...]

_POLL_SECONDS = 0.2
_LAST_SECONDS = 5.0
"""How long a process that was told to end, or to say where it hangs, may take for it."""

_LATE: Final = "it had outlived its time limit, and nothing in it could be interrupted"

_SHOWN_LINES: Final = 20
_SHOWN_STACK: Final = 60
_TAIL: Final = 100_000
_NOT_SHOWN: Final = tuple(f"{os.sep}{name}" for name in ("_pytest/", "pluggy/", "plugin/isolated_"))

Serve = Callable[[Connection, int, int], NoReturn]
"""What runs in the child: its end of the pipe, and the files for last words and for what it prints."""


class IsolatedProcess:
    """A forked process that runs tests of cells.

    Args:
        serve: what the child does; it never returns.

    Attributes:
        number: of the process.
        deadline: when it has to be killed, by the monotonic clock; None for never.
        killed: whether it was, because of that.

    Raises:
        OSError: the system has no room for one more process.
    """

    def __init__(self, serve: Serve) -> None:
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close
        self._pipe, theirs = Pipe()
        self.deadline: float | None = None
        self.killed = False
        self._why = ""
        self._status: int | None = None
        try:
            self.number = fork()
        except OSError:
            self._close_files()
            theirs.close()
            raise
        if self.number == 0:
            self._pipe.close()
            serve(theirs, self._words.fileno(), self._printed.fileno())
        theirs.close()
        self._ended = _handle(self.number)

    def send(self, *message: object) -> None:
        """Tell the process something. One that has died is noticed by `receive`."""
        with suppress(OSError):
            self._pipe.send_bytes(pickle.dumps(message))

    @property
    def handles(self) -> tuple[Any, ...]:
        """What is ready, for `multiprocessing.connection.wait`, when the process says something or has ended."""
        return (self._pipe,) if self._ended is None else (self._pipe, self._ended)

    def has_news(self) -> bool:
        """Whether `receive` would return at once."""
        late = self.deadline is not None and time.monotonic() > self.deadline
        return self._pipe.poll() or self._over() or late

    def kill(self, why: str = _LATE) -> None:
        """End the process, if it has not ended, and have it leave its stacks behind; `why` is said by `ending`."""
        if self._over():
            return
        self.killed, self._why = True, why
        self._kill_with_stacks()

    def receive(self) -> Message | None:
        """Wait for what the process says next; None where it has died, was killed, or has closed its end."""
        while True:
            # Someone else may hold the other end of the pipe after the process has died: a process that it has forked.
            ready = wait(self.handles, _POLL_SECONDS)
            if self._pipe in ready or self._pipe.poll():
                try:
                    message: Message = pickle.loads(self._pipe.recv_bytes())  # noqa: S301  # of our own fork
                except (EOFError, OSError, pickle.UnpicklingError):
                    self._reap(_LAST_SECONDS)
                    return None
                return message
            if self._over():
                return None
            if self.deadline is not None and time.monotonic() > self.deadline:
                self.kill()
                return None

    def close(self, seconds: float = _LAST_SECONDS) -> None:
        """Wait until the process has ended; interrupt it after a while, and kill it when it takes longer."""
        until = time.monotonic() + seconds
        interrupted = time.monotonic() + _LAST_SECONDS
        while not self._over() and time.monotonic() < until:
            if time.monotonic() > interrupted:
                # In the middle of a test, when nobody but pytest's process was told to stop.
                interrupted = until
                os.kill(self.number, signal.SIGINT)
            # What it still says is read, so that it never waits for room in the pipe.
            if self._pipe in wait([self._pipe], 0.01):
                try:
                    self._pipe.recv_bytes()
                except (EOFError, OSError):
                    break
        self._reap(max(0.0, until - time.monotonic()))
        self._close_files()

    def ending(self) -> str:
        """How the process ended, as the end of a sentence that begins with it."""
        if self.killed:
            return f"was killed: {self._why}"
        status = self._status
        if status is None:
            return "has closed its connection to pytest, and was killed"
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            why = " (of the system, for want of memory, or of a user)" if number == signal.SIGKILL else ""
            return f"was ended by signal {number}{_name(number)}{why}"
        return f"ended with exit code {os.WEXITSTATUS(status)}"

    def last_words(self) -> str:
        """What the process has left of its stack, and of the reason why it was ended; empty where it left nothing."""
        lines = _text(self._words.fileno()).strip("\n").splitlines()
        # The way from the command to the test is the same for each.
        shown = [line for line in lines if not any(part in line for part in _NOT_SHOWN)]
        return "\n".join(shown[:_SHOWN_STACK])

    def printed(self) -> str:
        """The last lines that the process has printed and no report has, where output is captured in the process."""
        return last_lines(_text(self._printed.fileno()))

    def _over(self) -> bool:
        if self._status is None:
            try:
                number, status = os.waitpid(self.number, os.WNOHANG)
            except ChildProcessError:
                # Someone waits for every child, and has taken the news.
                number, status = self.number, 0
            if number:
                self._status = status
        return self._status is not None

    def _reap(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._over() and time.monotonic() < until:
            time.sleep(0.005)
        if not self._over():
            with suppress(ProcessLookupError):
                os.kill(self.number, signal.SIGKILL)
            os.waitpid(self.number, 0)

    def _kill_with_stacks(self) -> None:
        # faulthandler writes the stacks of all threads, also of one that is deep in C, before the process ends.
        with suppress(ProcessLookupError):
            os.kill(self.number, signal.SIGABRT)
        self._reap(_LAST_SECONDS)

    def _close_files(self) -> None:
        self._pipe.close()
        self._words.close()
        self._printed.close()
        ended, self._ended = getattr(self, "_ended", None), None
        if ended is not None:
            os.close(ended)


def last_lines(text: str, most: int = _SHOWN_LINES) -> str:
    """The last lines of `text` that are not blank at its ends."""
    lines = text.strip("\n").splitlines()
    return "\n".join(lines[-most:])


def _handle(number: int) -> int | None:
    """A file descriptor that is ready when the process has ended, where the system has such a thing."""
    try:
        return os.pidfd_open(number)
    except (AttributeError, OSError):
        return None


def _text(file: int) -> str:
    size = os.fstat(file).st_size
    return os.pread(file, _TAIL, max(0, size - _TAIL)).decode(errors="replace")


def _name(number: int) -> str:
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return ""
