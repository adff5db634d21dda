"""Runs tests in a forked process, as it is told to, and sends its reports to the parent: see `isolated_process`."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import pickle
import signal
import sys
import traceback
import warnings
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Final, NoReturn

import pytest

if TYPE_CHECKING:
    from pytest_llmdevice.plugin.session import MatrixRun
    from pytest_llmdevice.plugin.timeout_plugin import LimitedItems

_end_process = os._exit
_PR_SET_PDEATHSIG: Final = 1
_LOST = 70
"""The exit code of a child whose pipe was closed or replaced."""

REPORTED: Final = ("pytest_runtest_logstart", "pytest_runtest_logreport", "pytest_runtest_logfinish")
"""Hooks by which reporters hear of tests: in the parent only, else they would hear of each test twice."""

LIBRARIES: Final = frozenset(
    {"accelerate", "huggingface_hub", "numpy", "pytest_llmdevice", "safetensors", "tokenizers", "torch", "transformers"}
)
"""What a child may have the parent import for the children to come. Importing it leaves the devices alone."""


class IsolatedChild:
    """What is left of pytest in the child: its hooks, and the loop that runs what the parent asks for."""

    def __init__(self, session: pytest.Session, run: MatrixRun, pipe: Connection, words: int, printed: int) -> None:
        self._session = session
        self._config = session.config
        self._run = run
        self._pipe = pipe
        self._inode = os.fstat(pipe.fileno()).st_ino
        self._words = words
        self._printed = printed
        self._number = os.getpid()
        self._modules = frozenset(sys.modules)
        self._ready = False

    def serve(self) -> NoReturn:
        """Run tests until the parent says that it is enough, or is gone."""
        code = 1
        try:
            self._prepare()
            self._loop()
            code = 0
        except (EOFError, BrokenPipeError):
            pass
        except KeyboardInterrupt:
            # Of a user, between two tests: the parent has it too, and says so.
            self._tear_down()
        except BaseException:  # noqa: BLE001  # whatever it is, it must not go on as a second parent
            os.write(self._words, traceback.format_exc().encode(errors="replace"))
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            # Not the interpreter's own end: exit handlers and threads of the parent are none of the child's.
            _end_process(code)

    def _prepare(self) -> None:
        if sys.platform == "linux":
            # A parent that is killed takes its children along.
            with suppress(Exception):
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        faulthandler.enable(self._words)
        self._run.hands_over = self._run.forks_ranks = False
        manager = self._config.pluginmanager
        limited: LimitedItems | None = manager.getplugin("llmdevice-limited")
        if limited is not None:
            limited.restart(self._words, lambda seconds: self._send("limit", seconds))
        guard: Any = manager.getplugin("llmdevice-guard")
        if guard is not None:
            guard.restart(self._words)
        # What the parent has set up is torn down there.
        stack = self._session._setupstate.stack  # noqa: SLF001  # no other way in
        for node, (_, error) in stack.items():
            stack[node] = ([], error)
        for name in (*REPORTED, "pytest_warning_recorded"):
            getattr(self._config.hook, name)._hookimpls.clear()  # noqa: SLF001  # for each plugin, whatever its name
        manager.register(self, "llmdevice-isolated-child")
        self._copy_what_is_captured_in_memory()
        self._ready = True

    def _loop(self) -> None:
        items = self._session.items
        while True:
            command, *rest = pickle.loads(self._pipe.recv_bytes())  # noqa: S301  # of the process that we come from
            if command == "end":
                self._tear_down()
                return
            index, following = rest
            os.ftruncate(self._printed, 0)
            os.lseek(self._printed, 0, os.SEEK_SET)
            following_item = None if following is None else items[following]
            try:
                self._config.hook.pytest_runtest_protocol(item=items[index], nextitem=following_item)
            except KeyboardInterrupt:
                self._send("interrupted")
            except pytest.exit.Exception as stop:
                self._send("exit", stop.msg, stop.returncode)
            except Exception:  # noqa: BLE001  # of a hook: pytest would end the session, and does so in the parent
                self._send("broken", traceback.format_exc())
            else:
                last = following is None
                self._send("finished", self._imported() if last else ())
                if last:
                    return

    def _tear_down(self) -> None:
        # As at the end of a session: nobody can be told any more.
        with suppress(BaseException):
            self._session._setupstate.teardown_exact(None)  # noqa: SLF001  # what pytest does at its end

    def _imported(self) -> tuple[str, ...]:
        new = (name for name in list(sys.modules) if name not in self._modules)
        return tuple(name for name in new if name.partition(".")[0] in LIBRARIES)

    def _send(self, *message: object) -> None:
        if os.getpid() != self._number:
            return
        try:
            if os.fstat(self._pipe.fileno()).st_ino != self._inode:
                _end_process(_LOST)
            self._pipe.send_bytes(_packed(message))
        except (OSError, ValueError):
            _end_process(_LOST)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Send a report, and hear whether the session is about to end: then all is torn down with this test."""
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._send("report", data)
        self._session.shouldfail, self._session.shouldstop = pickle.loads(self._pipe.recv_bytes())  # noqa: S301

    def pytest_warning_recorded(
        self, warning_message: warnings.WarningMessage, when: str, nodeid: str, location: tuple[str, int, str] | None
    ) -> None:
        """Send a warning, but for those that the parent knows of."""
        if self._ready:
            known = (warning_message.message, warning_message.category)
            try:
                pickle.loads(pickle.dumps(known))  # noqa: S301  # whether it can be done
            except Exception:  # noqa: BLE001  # as many ways as there are warnings
                known = (UserWarning(f"{warning_message.category.__name__}: {warning_message.message}"), UserWarning)
            self._send("warning", *known, warning_message.filename, warning_message.lineno, when, nodeid, location)

    def pytest_enter_pdb(self) -> None:
        """Whoever looks at a cell takes the time that it takes."""
        self._send("limit", None)

    def _copy_what_is_captured_in_memory(self) -> None:
        """Keep a copy of what `--capture=sys` and `tee-sys` hold in the memory of a process that may crash."""
        capture: Any = getattr(self._config.pluginmanager.getplugin("capturemanager"), "_global_capturing", None)
        for each in (getattr(capture, "out", None), getattr(capture, "err", None)):
            if each is None or type(each).__name__ != "SysCapture":
                continue
            _copying(each.tmpfile, self._printed)


def _copying(stream: Any, file: int) -> None:
    write = stream.write

    def written(text: str) -> int:
        with suppress(Exception):
            os.write(file, text.encode(errors="replace"))
        return int(write(text))

    stream.write = written


def _packed(message: tuple[object, ...]) -> bytes:
    try:
        return pickle.dumps(message)
    except Exception:  # noqa: BLE001  # a property of a test may be anything
        return pickle.dumps(_plain(message))


def _plain(value: Any) -> Any:
    """`value` with the text of each thing that is no plain data."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(each) for each in value) if type(value) in {list, tuple} else str(value)
    return value if value is None or type(value) in {str, int, float, bool} else str(value)
