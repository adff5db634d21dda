"""What it costs to collect 10,000 cells, against 10,000 plain parametrized ids."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

MATRIX = """
models = ["*"]
devices = ["cpu", "mps", "cuda:0", "cuda:1", "rocm:0", "rocm:1"]
dtypes = ["float32", "bfloat16", "float16"]
quantization = ["none", "int8", "nf4", "nf4-double", "fp4"]
strategies = ["to", "device-map", "auto", "balanced", "sequential", "split", "cpu-offload", "disk-offload"]
"""

CELLS = "def test_cell(llm_cell): pass\n"

PLAIN = """
import pytest

@pytest.mark.parametrize("value", range({count}), ids=[f"model.device{{n}}.dtype.none.to" for n in range({count})])
def test_plain(value): pass
"""

# What pytest itself does for a session-scoped parameter, which a cell is: it orders the tests by it.
SESSION = """
import pytest

@pytest.fixture(scope="session")
def value(request): return request.param

@pytest.mark.parametrize("value", range({count}), ids=[f"model.device{{n}}.dtype.none.to" for n in range({count})],
                         indirect=True, scope="session")
def test_session(value): pass
"""

# Only pytest's own collection: process start, imports and the hardware probe are not what is compared.
CONFTEST = """
import time

def pytest_collection(session):
    session.config.started = time.perf_counter()

def pytest_collection_finish(session):
    print(f"COLLECTED {len(session.items)} in {time.perf_counter() - session.config.started:.4f}")
"""


def collect(folder: Path, *args: str) -> tuple[int, float]:
    """(items, seconds) of one collection in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-s", "-p", "no:cacheprovider", *args],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"COLLECTED (\d+) in ([\d.]+)", done.stdout)
    if found is None:
        sys.exit(done.stdout[-2000:] + done.stderr)
    return int(found[1]), float(found[2])


def main() -> None:
    """Print the ratio of the two collections, for the same number of items."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "conftest.py").write_text(CONFTEST)
        (folder / "many.toml").write_text(MATRIX)
        (folder / "test_cells.py").write_text(CELLS)
        count, _ = collect(folder, "--llm-matrix", "--llm-matrix-file=many.toml", "test_cells.py")
        (folder / "test_plain.py").write_text(PLAIN.format(count=count))
        (folder / "test_session.py").write_text(SESSION.format(count=count))
        rounds = [
            (
                collect(folder, "--llm-matrix", "--llm-matrix-file=many.toml", "test_cells.py")[1],
                collect(folder, "test_plain.py")[1],
                collect(folder, "test_session.py")[1],
            )
            for _ in range(7)
        ]
        cells, plain, session = (median(column) for column in zip(*rounds, strict=True))
        print(f"{count} cells: {cells:.2f} s")
        for kind, column, seconds in (("plain ids", 1, plain), ("session-scoped ids", 2, session)):
            ratios = sorted(row[0] / row[column] for row in rounds)
            print(
                f"{count} {kind}: {seconds:.2f} s; cells cost {median(ratios):.2f}x "
                f"(from {ratios[0]:.2f}x to {ratios[-1]:.2f}x)"
            )


if __name__ == "__main__":
    main()
