"""Limits the time of the main thread: raises an exception there at first, and later ends the process.

A thread of its own keeps the time and sends the main thread a signal. Not an alarm: `SIGALRM` and its one timer belong
to whoever else limits tests. Code that never comes back to Python, and systems without the signal (Windows), cannot be
interrupted: what is left then is to end the process, which says where it hung.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

SIGNAL: Final = getattr(signal, "SIGURG", None)
"""Nobody minds one that comes late: it is ignored unless a handler is installed."""

GRACE_SECONDS: Final = 60.0
"""How long after its time is up the main thread may still run before the process is ended."""

IMPORT_SHARE: Final = 0.5
"""The part of the grace in which an import may end before it is interrupted."""

# As it is now: while a cell runs, `process_guard` speaks of whoever calls it.
_end_process = os._exit
_TICK = 0.1
_MARGIN = 15.0
_FIRST_PAUSE = 2.0

_DEBUGGERS: Final = frozenset({"bdb", "pdb", "pydevd", "_pydevd_frame_eval", "debugpy"})

Interruption = Callable[[FrameType | None], BaseException]
LastWords = Callable[[FrameType | None], str]


@dataclass
class _Limit:
    deadline: float
    error: Interruption
    last_words: LastWords
    next_signal: float = field(init=False)
    pause: float = _FIRST_PAUSE

    def __post_init__(self) -> None:
        self.next_signal = self.deadline


class Watchdog:
    """Keeps time for the main thread, one limit at a time.

    Args:
        output: the file descriptor to write to before the process is ended.
        grace: seconds between the interruption and the end of the process.
        hard: whether faulthandler's timer may be used too, for code that keeps every other thread from running.
            There is one such timer in a process.
    """

    def __init__(self, output: int = 2, grace: float = GRACE_SECONDS, *, hard: bool = True) -> None:
        self._output = output
        self._grace = grace
        self._hard = hard
        self._limit: _Limit | None = None
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._before: Any = None
        self._installed = False
        self._armed_until = 0.0

    @property
    def running(self) -> bool:
        """Whether a limit holds now."""
        return self._limit is not None

    def start(self, seconds: float, error: Interruption, last_words: LastWords) -> None:
        """Let `seconds` pass, then raise `error(frame)` in the main thread, and again until `stop` is called.

        Does nothing in another thread than the main one, and under a debugger.

        Args:
            seconds: from now on.
            error: makes the exception, of the frame that was interrupted. One that is no `Exception` is not caught
                by the code under test.
            last_words: what to say if the process must be ended, of the frame that the main thread is in.
        """
        if threading.current_thread() is not threading.main_thread() or _debugged():
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="llm-cell-timeout", daemon=True)
            self._thread.start()
        if SIGNAL is not None:
            self._before = signal.signal(SIGNAL, self._interrupt)
            self._installed = True
        deadline = time.monotonic() + seconds
        # Each setting of this timer makes a thread: one that was kept and ends at about the same time will do.
        if self._hard and abs(deadline - self._armed_until) > _MARGIN / 3:
            self._armed_until = deadline
            faulthandler.dump_traceback_later(seconds + self._grace + _MARGIN, exit=True, file=self._output)
        self._limit = _Limit(deadline, error, last_words)

    def stop(self, *, resumed: bool = False) -> None:
        """End the limit, and leave signals as they were found. Does nothing when there is none.

        Args:
            resumed: whether the time that is left will be given to `start` again at once; then faulthandler's timer
                is kept.
        """
        held, self._limit = self._limit, None
        if self._armed_until and not resumed:
            self._armed_until = 0.0
            faulthandler.cancel_dump_traceback_later()
        if held is None:
            return
        if SIGNAL is not None and self._installed:
            self._installed = False
            # None is a handler that was not installed from Python, and cannot be put back.
            signal.signal(SIGNAL, signal.SIG_DFL if self._before is None else self._before)

    def restart(self) -> None:
        """Be ready to keep time in a process that was forked just now: threads and timers stay with the parent."""
        self._limit = self._thread = None
        self._armed_until = 0.0
        self._closed = threading.Event()

    def close(self) -> None:
        """Stop keeping time for good."""
        self.stop()
        self._closed.set()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        limit = self._limit
        if limit is None or time.monotonic() < limit.deadline:
            if callable(self._before):
                self._before(number, frame)
            return
        importing = _importing(frame) and time.monotonic() < limit.deadline + self._grace * IMPORT_SHARE
        if importing or _between(frame):
            limit.next_signal = time.monotonic()
            return
        raise limit.error(frame)

    def _watch(self) -> None:
        main = threading.main_thread().ident or 0
        while not self._closed.wait(_TICK):
            limit, now = self._limit, time.monotonic()
            if limit is None or now < limit.deadline:
                continue
            if now > limit.deadline + self._grace:
                self._end(limit)
            elif SIGNAL is not None and now >= limit.next_signal:
                # Further and further apart: what the first one began to clean up must get the time for it.
                limit.next_signal = now + limit.pause
                limit.pause *= 2
                signal.pthread_kill(main, SIGNAL)

    def _end(self, limit: _Limit) -> None:
        frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001  # documented
        text = f"\n\n{limit.last_words(frame)}\n\nAll threads:\n"
        os.write(self._output, text.encode(errors="replace"))
        faulthandler.dump_traceback(self._output, all_threads=True)
        _end_process(1)


def _between(frame: FrameType | None) -> bool:
    """Whether `frame` is setting something up or putting it back: interrupted there, it would stay half done."""
    for _ in range(4):
        if frame is None:
            return False
        if frame.f_code.co_name in {"__enter__", "__exit__"}:
            return True
        frame = frame.f_back
    return False


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported: interrupted, a library would be half there for all later cells.

    Python takes the module away that was interrupted, not those that it had imported before; what these had registered,
    as the operators of bitsandbytes, cannot be registered again.
    """
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _debugged() -> bool:
    trace = sys.gettrace()
    return getattr(trace, "__module__", "").partition(".")[0] in _DEBUGGERS


def real_stderr() -> int:
    """A copy of the file descriptor of standard error, to be taken before output is captured."""
    for stream in (sys.stderr, sys.__stderr__):
        try:
            return os.dup(stream.fileno())  # type: ignore[union-attr]
        except (AttributeError, OSError, ValueError):
            continue
    return os.dup(2)
