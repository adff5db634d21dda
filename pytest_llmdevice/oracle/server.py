"""Answers questions in a process in which the code under test was never imported.

Whoever patches a class of transformers or torch at import patches what a plain load is made of too, and every
expectation would excuse what it does. Here a question is a function of this package and its arguments; the answer is
what it returns.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any, Final

from pytest_llmdevice.errors import first_line
from pytest_llmdevice.matrix.registry import Registry, built_in, current, in_force
from pytest_llmdevice.oracle.process import SENT, answers

WATCH_SECONDS: Final = 1.0
"""How often the process looks whether the one that started it is still there."""


def serve(listener: Listener, parent: int) -> None:
    """Answer one question after another; ends the process when that of `parent` has gone.

    Args:
        listener: where questions arrive, each on a connection of its own: one that breaks off in the middle of a
            question concerns no other.
        parent: the process that started this one.
    """
    answers()
    threading.Thread(target=_watch, args=(parent, Path(str(listener.address)).parent), daemon=True).start()
    while True:
        # Whoever asked may have been killed.
        with suppress(OSError, EOFError), listener.accept() as connection:
            _answer(connection)


def _watch(parent: int, folder: Path) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    # It was killed, and could not tidy up.
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _answer(connection: Connection) -> None:
    try:
        function, arguments, keywords, simulated, plugins, names, folders = connection.recv()
        with ExitStack() as stack:
            if (registry := _with(plugins, names, folders)) is not None:
                stack.enter_context(in_force(registry))
            if simulated:
                from pytest_llmdevice.simulation.simulate import simulate

                stack.enter_context(simulate(simulated))
            value: Any = function(*arguments, **keywords)
        answer = packed(("value", value))
    except Exception as error:  # noqa: BLE001  # raised where it was asked
        try:
            answer = packed(("error", error))
        except Exception:  # noqa: BLE001  # an exception of a library need not be one that pickles
            answer = packed(("error", RuntimeError(first_line(error))))
    connection.send_bytes(answer)


_registries: dict[tuple[tuple[str, ...], ...], Registry] = {}
"""Sources -> the registry with their entries: whoever asks may have others under the same names."""


def _with(plugins: Sequence[tuple[str, ...]], names: Sequence[str], folders: Sequence[str]) -> Registry | None:
    """The registry with the entries of `plugins`; None if all of `names` are here, as in a process that was forked.

    What they import is looked for in `folders` too.
    """
    if not set(names) - {name for table in SENT for name in current().names(table)}:
        return None
    key = tuple(map(tuple, plugins))
    if key not in _registries:
        sys.path += [folder for folder in folders if folder not in sys.path]
        registry = built_in()
        registry.load_sources(plugins)
        _registries[key] = registry
    return _registries[key]


def packed(answer: object) -> bytes:
    """`answer` as bytes, its tensors included."""
    import torch

    buffer = io.BytesIO()
    torch.save(answer, buffer)
    return buffer.getvalue()


def main(arguments: Sequence[str]) -> None:
    """Serve at the address that is the first of `arguments`; the key is the first line of the standard input."""
    import transformers.modeling_utils  # noqa: F401  # so that the first question is answered at once

    address, parent = arguments
    key = bytes.fromhex(sys.stdin.readline().strip())
    serve(Listener(address, authkey=key), int(parent))


if __name__ == "__main__":
    main(sys.argv[1:])
