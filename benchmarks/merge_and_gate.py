"""What it costs to merge and to gate the results of 50,000 records, as whole processes.

Prints wall-clock seconds and the peak of resident memory of each command, the median of several runs. The run is made
of cells with every check of the suite, the baseline of an equal run.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from results.builder import large  # tests/ is no package

CELLS = 2381
"""With 20 checks each, and the record of the cell: 50,001 records, and as many plans of cells on top."""

RUNS = 5


def measured(arguments: Sequence[str]) -> tuple[float, float]:
    """(seconds, MiB at most) of one `llmdevice ARGUMENTS` in a process of its own. Exits when it fails."""
    started = time.perf_counter()
    with Path(os.devnull).open("w") as nowhere:
        process = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", "from pytest_llmdevice.cli import main; main()", *arguments],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, nowhere.fileno(), 1)],
        )
        _, status, usage = os.wait4(process, 0)
    taken = time.perf_counter() - started
    if status:
        sys.exit(f"llmdevice {' '.join(arguments)} ended with {os.waitstatus_to_exitcode(status)}")
    return taken, usage.ru_maxrss / 1024


def told(name: str, arguments: Sequence[str], *, fresh: Path | None = None) -> None:
    """Print what `arguments` cost; the folder `fresh` is removed before each run."""
    found = []
    for _ in range(RUNS):
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)
        found.append(measured(arguments))
    seconds, sizes = zip(*found, strict=True)
    print(
        f"{name}: {statistics.median(seconds):.2f} s (from {min(seconds):.2f} to {max(seconds):.2f}), "
        f"at most {max(sizes):.0f} MiB"
    )


def make(folder: Path) -> None:
    """Write the results into `folder`."""
    large(CELLS, name="before").write(folder / "before")
    large(CELLS, lambda cell, check: "failed" if check == "dtypes" and cell.dtype == "float16" else "passed").write(
        folder / "a"
    )
    for number in range(3):
        large(CELLS // 3, name=f"part-{number}").write(folder / "parts")


def main() -> None:
    """Print the cost of each command."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Elsewhere: a child's peak counts what its parent holds when it starts it.
        maker = multiprocessing.get_context("spawn").Process(target=make, args=(folder,))
        maker.start()
        maker.join()
        baseline = str(folder / "baseline.jsonl")
        os.environ.pop("CI", None)
        told("llmdevice --version", ["--version"])
        told("merge", ["merge", str(folder / "a"), "-o", str(folder / "all")], fresh=folder / "all")
        told("gate --update", ["gate", str(folder / "before"), "--baseline", baseline, "--update"])
        told("gate against it", ["gate", str(folder / "all"), "--baseline", baseline, "--fail-on", "unused"])
        told("the same as JSON", ["gate", str(folder / "all"), "--baseline", baseline, "--fail-on", "unused", "--json"])
        parts = ["gate", str(folder / "parts"), "--baseline", baseline, "--fail-on", "slower"]
        told("gate of three runs of a third", parts)


if __name__ == "__main__":
    main()
