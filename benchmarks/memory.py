"""How the memory of a process grows over many loads, a third of them failing, and which objects there are more of."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tracemalloc
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.loading.load import Leftovers, Loaded
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.simulation import simulate
from pytest_llmdevice.zoo import checkpoint

if TYPE_CHECKING:
    from pytest_llmdevice.loading.target import Target

WARM_UP: Final = 20
PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Failing:
    """A target that fails with the whole model in its frames."""

    def load(self, path: str, cell: Cell) -> Any:
        """Load as the built-in target does, and raise."""
        model = BuiltinTarget().load(path, cell)
        raise ValueError(f"broken after {type(model).__name__}")


def resident() -> float:
    """The process's resident memory, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6


def objects() -> Counter[str]:
    """How many objects of each type there are, after a collection."""
    gc.collect()
    return Counter(f"{type(value).__module__}.{type(value).__qualname__}" for value in gc.get_objects())


def run(loads: int, where: str, strategy: str, *, trace: bool) -> None:
    """Load a tiny llama again and again, and print what grew after the first loads."""
    cell = Cell("llama", "cuda:1" if where != "cpu" else "cpu", "float32", strategy=strategy, simulated=where != "cpu")
    folder, leftovers = checkpoint(cell.model), Leftovers()
    kept = simulate("cuda:2")
    before: Counter[str] = Counter()
    start, blocks, snapshot = 0.0, 0, None
    for number in range(loads):
        if number == WARM_UP:
            before, start, blocks = objects(), resident(), sys.getallocatedblocks()
            if trace:
                gc.collect()
                tracemalloc.start()
                snapshot = tracemalloc.take_snapshot()
        machine: Any = nullcontext() if where == "cpu" else kept if where == "same machine" else simulate("cuda:2")
        target: Target = Failing() if number % 3 == 2 else BuiltinTarget()
        with machine:
            loaded = Loaded.load(target, folder, cell, leftovers)
            loaded.release()
        del loaded, machine
        if number >= WARM_UP and (number - WARM_UP) % 70 == 69:
            print(f"  load {number + 1}: {resident() - start:+.1f} MB", flush=True)
    after = objects()
    counted = loads - WARM_UP
    each = f"{1e3 * (resident() - start) / counted:.1f} kB, {(sys.getallocatedblocks() - blocks) / counted:.1f}"
    print(f"{where}, {strategy}: {each} of Python's blocks a load, after the first {WARM_UP}")
    for name, count in (after - before).most_common(12):
        print(f"  {count:+6} {name}")
    if snapshot is not None:
        gc.collect()
        for line in tracemalloc.take_snapshot().compare_to(snapshot, "lineno")[:15]:
            print(f"  {line}")


def main() -> None:
    """Run on the CPU and on simulated cards."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loads", type=int, default=300)
    parser.add_argument("--where", nargs="*", default=["cpu", "same machine", "new machines"])
    parser.add_argument("--strategy", default="device-map")
    parser.add_argument("--trace", action="store_true", help="say which lines hold more memory")
    arguments = parser.parse_args()
    for where in arguments.where:
        run(arguments.loads, where, arguments.strategy, trace=arguments.trace)


if __name__ == "__main__":
    main()
