"""Runs a script in several processes that know one another as those of `torchrun` do."""

from __future__ import annotations

import os
import select
import signal
import socket
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from forked_run import forked


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def in_ranks(script: str, size: int = 2, seconds: float = 300.0) -> list[list[str]]:
    """The lines that each of `size` ranks prints, which are forks of this process.

    Raises:
        AssertionError: one of them failed; with what it wrote to the standard error.
    """
    common = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    code = compile(script, "<the script of the ranks>", "exec")
    others, alive = os.pipe()

    def run() -> int:
        exec(code, {"__name__": "__main__"})
        os.close(alive)
        if os.environ["RANK"] == "0":
            # The store where they meet lives in this one; that of torchrun outlives all ranks.
            os.read(others, 1)
        return 0

    with ExitStack() as stack:
        nothing = stack.enter_context(Path(os.devnull).open())
        written = [[stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2)] for _ in range(size)]
        children = [
            forked(
                [nothing.fileno(), *(file.fileno() for file in files)],
                Path.cwd(),
                common | {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)},
                run,
            )
            for rank, files in enumerate(written)
        ]
        os.close(alive)
        stack.callback(os.close, others)
        ends = time.monotonic() + seconds
        codes = []
        for child in children:
            ended = os.pidfd_open(child)
            if not select.select([ended], [], [], max(0.0, ends - time.monotonic()))[0]:
                os.kill(child, signal.SIGKILL)
            os.close(ended)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            if codes[-1]:
                # The others would wait for it.
                ends = 0.0
        said = [[(file.seek(0), file.read())[1] for file in files] for files in written]
    for code_of_rank, (_, errors) in zip(codes, said, strict=True):
        assert code_of_rank == 0, errors
    return [out.splitlines() for out, _ in said]
