"""What a process for each cell costs on the CPU: the suite on a few cells with `--llm-isolate cell` and without it."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

from pairs import seconds

MATRIX = """
models = ["llama", "gpt2", "qwen2", "gemma3"]
devices = "cpu"
dtypes = ["float32", "bfloat16"]
"""

QUIET = ["--llm-matrix", "--llm-matrix-file=m.toml", "-q", "-p", "no:cacheprovider"]
SUITE = ["--pyargs", "pytest_llmdevice.suite"]


def main() -> None:
    """Print the ratios of wall-clock and of processor time, of runs in turn."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "m.toml").write_text(MATRIX)
        ways = [[*QUIET, f"--llm-isolate={what}", *SUITE] for what in ("cell", "none")]
        measured(ways[1], folder)  # Builds what is missing of the checkpoints.
        pairs = [tuple(measured(way, folder) for way in ways) for _ in range(runs)]
    for place, what in enumerate(("wall-clock", "processor")):
        one, other = (statistics.median(pair[way][place] for pair in pairs) for way in (0, 1))
        ratios = [pair[0][place] / pair[1][place] for pair in pairs]
        print(
            f"{what}: {one:.1f} s against {other:.1f} s: {statistics.median(ratios):.2f}x "
            f"(pairs from {min(ratios):.2f}x to {max(ratios):.2f}x, {runs} of them)"
        )


def measured(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall-clock and processor seconds of one run, with all processes that it waits for."""
    before = os.times()
    wall = seconds(command, folder)
    after = os.times()
    used = (after.children_user + after.children_system) - (before.children_user + before.children_system)
    return wall, used


if __name__ == "__main__":
    main()
