"""Asks questions of a process in which the code under test was never imported; see `server`.

The process is forked from this one where that can be done before anybody had a chance to patch the libraries, which
costs next to nothing; else it is a new one, which imports them itself. It is kept for as long as this process lives.
"""

from __future__ import annotations

import io
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

from pytest_llmdevice.errors import LLMDeviceError
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.monitoring.forks import fork

START_SECONDS: Final = 120.0
"""How long a new process may take until it answers."""

VARIABLE: Final = "LLMDEVICE_ORACLE"
"""An environment variable with the address and the key of a process that may be asked, instead of one of one's own.
Our own tests set it, which run many short processes."""

LIBRARIES: Final = ("torch", "transformers")
"""While none of these is imported, nobody has patched one."""

SENT: Final = ("quantization", "simulation profile")
"""The tables whose entries of plugins and matrix files the process is told of."""

P = ParamSpec("P")
T = TypeVar("T")


class OracleError(LLMDeviceError):
    """The process that makes expectations cannot be started, or has ended: nothing can be compared."""


class Address(NamedTuple):
    """Where questions are sent, and the key without which they are not answered."""

    path: str
    key: bytes

    def __str__(self) -> str:
        return f"{self.key.hex()}@{self.path}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read what `str` wrote."""
        key, _, path = text.partition("@")
        return cls(path, bytes.fromhex(key))


class OracleProcess:
    """A process that was started, and its end."""

    def __init__(self, *, fork: bool) -> None:
        """Start the process.

        Args:
            fork: whether it may be this process once more.

        Raises:
            OracleError: it cannot be started.
        """
        folder = tempfile.mkdtemp(prefix="llmdevice-")
        self.address = Address(str(Path(folder) / "oracle"), secrets.token_bytes(16))
        try:
            self._pid = _forked(self.address) if fork else 0
            self._process = None if fork else _started(self.address)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise OracleError(f"the process that makes expectations cannot be started: {error}") from None
        self._ready = fork
        self._end = weakref.finalize(self, _end, folder, self._pid, self._process, os.getpid())

    def wait(self) -> Address:
        """Wait until it answers; return where.

        Raises:
            OracleError: it ended, or took too long.
        """
        deadline = time.monotonic() + START_SECONDS
        while not self._ready:
            if Path(self.address.path).exists():
                self._ready = True
            elif self._process is not None and self._process.poll() is not None:
                raise OracleError(f"the process that makes expectations ended with {self._process.returncode}")
            elif time.monotonic() > deadline:
                raise OracleError(f"the process that makes expectations did not answer in {START_SECONDS:g} s")
            else:
                time.sleep(0.02)
        return self.address

    def close(self) -> None:
        """End the process."""
        self._end()


_answering: list[bool] = []
"""Not empty in a process that is asked: it answers its own questions."""

_own: list[OracleProcess] = []
"""The process of this one, once there is one; ended with it."""


def start() -> None:
    """Start the process, or have it start while other things are done; nothing where there is one.

    To be called before the code under test is imported, where that can be.

    Raises:
        OracleError: it cannot be started.
    """
    if _own or VARIABLE in os.environ:
        return
    untouched = not any(name in sys.modules for name in LIBRARIES)
    if untouched and hasattr(os, "fork") and sys.platform != "darwin":
        # Imported before anybody else can, so that both processes have them for the price of one.
        import torch  # noqa: F401
        import transformers.modeling_utils  # noqa: F401

        _own.append(OracleProcess(fork=True))
    else:
        _own.append(OracleProcess(fork=False))


def answers() -> None:
    """Say that this is a process that is asked."""
    _answering.append(True)


def ask(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `function`, of a module, returns for its arguments where the code under test was never imported.

    In a simulation it is called in one of the same machine.

    Raises:
        OracleError: the process cannot be started, or ended while it was asked.
        Exception: what `function` raises.
    """
    from pytest_llmdevice.simulation.simulate import active

    if _answering:
        return function(*args, **kwargs)
    simulation = active()
    address = _address()
    try:
        with Client(address.path, authkey=address.key) as connection:
            # Plugins are not the code under test: a plain load in a quantization of theirs needs its entry.
            registry = current()
            plugins = [tuple(source) for source in registry.sources(*SENT)]
            names = tuple(name for table in SENT for name in registry.names(table)) if plugins else ()
            profile = "" if simulation is None else simulation.profile.spec
            # They may import what is found by a path that pytest added after the process was started.
            folders = tuple(str(Path(path).absolute()) for path in sys.path) if plugins else ()
            connection.send((function, args, kwargs, profile, plugins, names, folders))
            answer = connection.recv_bytes()
    except (OSError, EOFError) as error:
        raise OracleError(
            f"the process that makes expectations has gone ({type(error).__name__} while {function.__name__} was asked)"
        ) from None
    kind, value = _unpacked(answer)
    if kind == "error":
        raise value
    return value  # type: ignore[no-any-return]


def _unpacked(answer: bytes) -> Any:
    import torch

    # It was packed by this package, in a process that it started.
    return torch.load(io.BytesIO(answer), weights_only=False)


def _address() -> Address:
    if given := os.environ.get(VARIABLE):
        return Address.parse(given)
    start()
    return _own[0].wait()


def _started(address: Address) -> subprocess.Popen[bytes]:
    # -P: what lies in the working directory must not shadow a library unless it does so here.
    command = (sys.executable, "-P", "-m", "pytest_llmdevice.oracle.server", address.path, str(os.getpid()))
    process = subprocess.Popen(  # noqa: S603  # our own module
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(str(Path(path).absolute()) for path in sys.path)},
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(f"{address.key.hex()}\n".encode())
    process.stdin.close()
    return process


def _forked(address: Address) -> int:
    parent = os.getpid()
    # Before the fork, so that it answers as soon as there are two.
    listener = Listener(address.path, authkey=address.key)
    pid = fork()
    if pid:
        # The socket stays in the other process; closing the listener would remove its name.
        listener._listener._socket.close()  # type: ignore[attr-defined]  # noqa: SLF001
        listener._listener._unlink.cancel()  # type: ignore[attr-defined]  # noqa: SLF001
        return pid
    try:
        os.setsid()
        _leave_files(keep=listener._listener._socket.fileno())  # type: ignore[attr-defined]  # noqa: SLF001
        from pytest_llmdevice.oracle.server import serve

        serve(listener, parent)
    finally:
        os._exit(1)


def _leave_files(keep: int) -> None:
    """Let go of the files of the other process: whoever waits for their end must not wait for this one."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    held = Path("/proc/self/fd")
    for number in [int(entry.name) for entry in held.iterdir()] if held.exists() else ():
        if number > 2 and number != keep:
            with suppress(OSError):
                os.close(number)


def _end(folder: str, pid: int, process: subprocess.Popen[bytes] | None, owner: int) -> None:
    # A fork of the process that started it leaves it alone.
    if os.getpid() != owner:
        return
    with suppress(OSError):
        if process is not None:
            process.kill()
            process.wait()
        elif pid:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
    shutil.rmtree(folder, ignore_errors=True)
