"""Runs of pytest in forks of this process: as apart from it as new ones, without the seconds of their imports."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import execnet.gateway_io
import pytest
import xdist.plugin

from pytest_llmdevice.monitoring.forks import fork

IGNORED: Final = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""What Python itself ignores."""

LARGEST: Final = 1 << 17
"""Bytes of the environment of a process."""


def run_forked(folder: Path, *arguments: str) -> pytest.RunResult:
    """Run pytest with `arguments` in `folder`, in a process that has what this one has imported.

    What pytest, the code under test and the system do in it stays there: modules, patches, registered values, the end
    of the process. Workers of pytest-xdist are forks of this process too, and not of the one that asks for them. What
    only a new interpreter does, as to run exit handlers, they do not.

    Returns:
        The exit code, negative for a signal, and what was written.
    """
    files = [folder / name for name in ("stdout", "stderr")]
    began = time.perf_counter()
    written = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for path in files]
    nothing = os.open(os.devnull, os.O_RDONLY)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH")))),
    }
    child = forked([nothing, *written], folder, environment, lambda: _pytest(theirs, arguments))
    theirs.close()
    for number in (nothing, *written):
        os.close(number)
    with ours:
        workers = _asked(ours, os.pidfd_open(child))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for worker in workers:
        os.waitpid(worker, 0)
    out, err = (path.read_text(encoding="utf-8", errors="replace") for path in files)
    # For pytest to show if the test fails.
    sys.stdout.write(out)
    sys.stderr.write(err)
    known = code in {*pytest.ExitCode}
    return pytest.RunResult(
        pytest.ExitCode(code) if known else code, out.splitlines(), err.splitlines(), time.perf_counter() - began
    )


def _asked(ours: socket.socket, ended: int) -> list[int]:
    """Fork a worker whenever one is asked for, until the process has ended that asks."""
    workers = []
    # Not until the other end is closed: whoever was forked there may hold it for longer.
    while ours.fileno() in select.select([ours.fileno(), ended], [], [])[0]:
        text, files, _, _ = socket.recv_fds(ours, LARGEST, 3)
        if not text:
            break
        folder, environment = json.loads(text)
        workers.append(forked(files, folder, environment, _worker))
        for number in files:
            os.close(number)
        ours.send(str(workers[-1]).encode())
    os.close(ended)
    return workers


def forked(files: list[int], folder: str | Path, environment: dict[str, str], work: Callable[[], int]) -> int:
    """The number of a fork that does `work`, which gives its exit code, with these files as its standard ones."""
    child = fork()
    if child:
        return child
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, given in enumerate(files):
            os.dup2(given, number)
        sys.stdin, sys.stdout, sys.stderr = (
            open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115  # until the process ends
            for number, mode in enumerate(("r", "w", "w"))
        )
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        # As `python -m` has it.
        sys.path.insert(0, str(folder))
        warnings.resetwarnings()
        for category in IGNORED:
            warnings.simplefilter("ignore", category)
        code = work()
    except BaseException:  # noqa: BLE001  # whatever it is, it must not go on as a second parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _forget_what_pytester_dropped() -> None:
    """Have packages without the modules that runs in this process were the first to import."""
    for name, package in [*sys.modules.items()]:
        if name.partition(".")[0] == "pytest_llmdevice":
            for attribute, value in [*vars(package).items()]:
                full = f"{name}.{attribute}"
                # Else `from package import module` gives the old one, which nobody else has.
                if isinstance(value, ModuleType) and value.__name__ == full and sys.modules.get(full) is not value:
                    delattr(package, attribute)


def _pytest(parent: socket.socket, arguments: tuple[str, ...]) -> int:
    _forget_what_pytester_dropped()
    # xdist notes the path when it is imported, for workers.
    xdist.plugin._sys_path[:] = sys.path

    def started(self: Any, _: list[str], execmodel: Any) -> None:
        self.popen = _Worker(parent)
        super(execnet.gateway_io.Popen2IOMaster, self).__init__(self.popen.stdin, self.popen.stdout, execmodel)

    opened: Any = execnet.gateway_io.Popen2IOMaster
    opened.__init__ = started
    sys.argv = ["pytest", *arguments]
    return int(pytest.main([*arguments]))


def _worker() -> int:
    _forget_what_pytester_dropped()
    # As execnet's own command has it.
    exec(eval(sys.stdin.readline()), {"__name__": "__main__"})
    return 0


class _Worker:
    """What execnet and xdist need of a `subprocess.Popen`."""

    def __init__(self, parent: socket.socket) -> None:
        theirs, mine = os.pipe()
        self.stdin = os.fdopen(mine, "wb")
        mine, out = os.pipe()
        self.stdout = os.fdopen(mine, "rb")
        socket.send_fds(parent, [json.dumps([str(Path.cwd()), {**os.environ}]).encode()], [theirs, out, 2])
        for number in (theirs, out):
            os.close(number)
        self.pid = int(parent.recv(20))
        self._ended = os.pidfd_open(self.pid)

    def wait(self) -> None:
        select.select([self._ended], [], [])

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
