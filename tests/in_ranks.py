"""Runs a script in several processes that know one another as those of `torchrun` do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def in_ranks(script: str, size: int = 2, seconds: float = 300.0) -> list[list[str]]:
    """The lines that each of `size` ranks prints.

    Raises:
        AssertionError: one of them failed; with what it wrote to the standard error.
    """
    common = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    lines = []
    try:
        for process in processes:
            out, errors = process.communicate(timeout=seconds)
            assert process.returncode == 0, errors
            lines.append(out.splitlines())
    finally:
        for process in processes:
            process.kill()
    return lines
