"""Timing whole commands, two in turn so that both see the same noise."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


def seconds(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> float:
    """Wall-clock seconds of one run of `python -m pytest ...` in `folder`. Exits when it fails."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *command],
        cwd=folder,
        env=os.environ | dict(environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    taken = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"pytest {' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return taken


def ratio(first: Sequence[str], second: Sequence[str], folder: Path, runs: int) -> str:
    """Run both commands `runs` times in turn, after one of each that does not count; describe the medians."""
    seconds(first, folder)
    seconds(second, folder)
    pairs = [(seconds(first, folder), seconds(second, folder)) for _ in range(runs)]
    one, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    spread = [a / b for a, b in pairs]
    return (
        f"{one:.3f} s against {other:.3f} s: {statistics.median(spread):.3f}x "
        f"(pairs from {min(spread):.3f}x to {max(spread):.3f}x, {runs} of them)"
    )
