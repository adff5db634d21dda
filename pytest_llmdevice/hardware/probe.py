"""Starts the probe as a child process, waits for it within a time limit, and always returns an inventory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final, Self

from pytest_llmdevice.hardware import host
from pytest_llmdevice.hardware.inventory import Inventory
from pytest_llmdevice.matrix.registry import Source, current

PROBE_TIMEOUT_SECONDS: Final = 120.0
"""How long the probe may take unless the user says otherwise."""

MARKER: Final = "@@ llmdevice inventory @@"
"""The line before the JSON on the child's stdout; what was printed before it is chatter."""

STAGE: Final = "llmdevice probe: "
"""Prefix of the lines on stderr by which the child says what it is about to try."""

_SHOWN_LINES: Final = 4
_SHOWN_WIDTH: Final = 200


def start(timeout: float = PROBE_TIMEOUT_SECONDS, command: Sequence[str] | None = None) -> ProbeProcess:
    """Start the probe and return at once; the caller's own work and the child's imports overlap.

    Args:
        timeout: seconds from now within which the child must have ended.
        command: what to run instead of the real child. It must write `MARKER` and an inventory to stdout.
    """
    return ProbeProcess(timeout, command)


def probe(timeout: float = PROBE_TIMEOUT_SECONDS) -> Inventory:
    """The inventory of this machine. Never raises for what the child does: see `Inventory.failure`."""
    with start(timeout) as process:
        return process.result()


class ProbeProcess:
    """A probe under way. A context manager; leaving it, or dropping it, kills a child that still runs."""

    def __init__(self, timeout: float, command: Sequence[str] | None = None) -> None:
        module = "pytest_llmdevice.hardware.probe_worker"
        # -P: what lies in the working directory must not shadow a library unless it does so in the parent.
        command = command or (sys.executable, "-P", "-m", module, str(timeout), json.dumps(_sources()))
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._inventory: Inventory | None = None
        # Nameless files and not pipes: nothing to clean up, nothing fills, and a grandchild that outlives the
        # child and holds its output cannot keep us waiting.
        self._stdout: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 closed by _end
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 closed by _end
        self._process: subprocess.Popen[bytes] | None = None
        self._spawn_error = ""
        try:
            self._process = subprocess.Popen(  # noqa: S603 our own module, or a test's command
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._stdout,
                stderr=self._stderr,
                env=_environment(),
                # A group of its own: one signal reaches its children too, and Ctrl-C is the parent's affair.
                start_new_session=True,
            )
        except OSError as error:
            self._spawn_error = f"the probe could not be started: {error}"
        # Also when it is dropped and when Python exits.
        self._end = weakref.finalize(self, _end, self._process, self._stdout, self._stderr)

    def result(self) -> Inventory:
        """Wait for the child for what is left of the limit and read its inventory. The same one each time."""
        if self._inventory is None:
            try:
                self._inventory = self._wait()
            finally:
                self.close()
        return self._inventory

    def close(self) -> None:
        """Kill the child and its children if they still run; drop what they wrote. Can be called again."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _wait(self) -> Inventory:
        if self._process is None:
            return _failed(self._spawn_error)
        if self._stdout.closed:
            return _failed("the probe was stopped before it ended")
        try:
            code = self._process.wait(max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _kill_group(self._process)
            return _failed(f"timed out after {self._timeout:g} s{self._context()}", timed_out=True)
        if code < 0:
            return _failed(f"crashed with signal {-code}{_signal_name(-code)}{self._context()}")
        if code > 0:
            return _failed(f"ended with exit code {code}{self._context()}")
        self._stdout.seek(0)
        _, marker, answer = self._stdout.read().rpartition(f"{MARKER}\n".encode())
        if not marker:
            return _failed(f"wrote no inventory{self._context()}")
        try:
            return Inventory.from_json(answer)
        except ValueError as error:
            return _failed(f"wrote an unreadable inventory ({str(error).splitlines()[0]}){self._context()}")

    def _context(self) -> str:
        """Which trial was under way, and the last lines of stderr."""
        self._stderr.seek(0)
        text = self._stderr.read().decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        stages = [line.removeprefix(STAGE) for line in lines if line.startswith(STAGE)]
        shown = [line[:_SHOWN_WIDTH] for line in lines if not line.startswith(STAGE)][-_SHOWN_LINES:]
        during = f" during: {stages[-1]}" if stages else ""
        return during + (f"; last output: {' | '.join(shown)}" if shown else "")


def _sources() -> list[Source]:
    """Where the child finds what plugins have registered that it has to try: device kinds and quantizations."""
    return current().sources("device kind", "quantization")


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    # The child must see the libraries that the parent sees, whatever put them on its path. An empty entry
    # there is the working directory.
    environment["PYTHONPATH"] = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
    # Sixty-four threads for a 64 x 64 matrix cost more than they bring.
    return environment | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _failed(failure: str, *, timed_out: bool = False) -> Inventory:
    # What can be read without torch is kept: a record of the run still needs its versions.
    return Inventory(
        versions=host.installed_versions(),
        system=host.system(),
        visible=host.visible(),
        failure=failure,
        timed_out=timed_out,
    )


def _end(process: subprocess.Popen[bytes] | None, *files: IO[bytes]) -> None:
    if process is not None:
        _kill_group(process)
    for file in files:
        file.close()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # Only while the child is not reaped: afterwards its number may belong to another process. In a fork of the
    # parent, whose child it is not, poll() says that it ended, and it is left alone.
    if process.poll() is None:
        if sys.platform == "win32":
            process.kill()
        else:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                process.kill()
        process.wait()


def _signal_name(number: int) -> str:
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return ""
