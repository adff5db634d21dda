"""Says what is wrong with a cell that is loaded by itself, in a process in which nothing was loaded before."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.dtypes import check_dtypes
from pytest_llmdevice.checks.placement import check_placement
from pytest_llmdevice.checks.values import check_values
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.loading.load import Loaded
from pytest_llmdevice.loading.pristine import ModuleName, pristine
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.oracle.expectations import expectations_of
from pytest_llmdevice.oracle.process import SENT

if TYPE_CHECKING:
    from torch import nn

    from pytest_llmdevice.loading.target import Target

SECONDS: Final = 120.0
"""How long a load in a process of its own may take, imports included."""

Problems = list[tuple[str, Finding]]
"""(check, finding) of each thing that is wrong."""


def problems_of(model: nn.Module, checkpoint: str, cell: Cell) -> Problems:
    """What is wrong with the dtypes, the places and the values of `model`, loaded for `cell`."""
    expectations = expectations_of(model, checkpoint, cell)
    results = (
        check_dtypes(model, expectations, cell, checkpoint),
        check_placement(model, expectations, cell),
        check_values(model, checkpoint, cell),
    )
    return [(result.check, finding) for result in results for finding in result.findings]


def lone_problems(target: Target, checkpoint: str, cell: Cell) -> frozenset[tuple[str, str]] | None:
    """Where something is wrong, and what is there, when `target` loads nothing but `cell`.

    Args:
        target: the code under test.
        checkpoint: a local folder.
        cell: what to load; in a simulation, in one of the same machine.

    Returns:
        (where, actual) of each finding; None where that cannot be known: the target cannot be had as it was before its
        first load (a fixture made it of what no module has), or cannot load the cell there.
    """
    from pytest_llmdevice.simulation.simulate import active

    simulation = active()
    if not (before := pristine(target)):
        return None
    profile = "" if simulation is None else simulation.profile.spec
    plugins = [tuple(source) for source in current().sources(*SENT)]
    asked = pickle.dumps((before, checkpoint, cell, profile, plugins))
    with tempfile.TemporaryDirectory(prefix="llmdevice-lone-", ignore_cleanup_errors=True) as folder:
        answer = Path(folder) / "answer"
        paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
        try:
            subprocess.run(  # noqa: S603  # our own module
                (sys.executable, "-P", "-m", "pytest_llmdevice.checks.lone_load", str(answer)),
                input=asked,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": paths},
                timeout=SECONDS,
                check=True,
            )
            found: frozenset[tuple[str, str]] = pickle.loads(answer.read_bytes())  # noqa: S301  # of our own process
        except (OSError, subprocess.SubprocessError):
            return None
        return found


def main(answer: Path) -> None:
    """Answer the question that is on the standard input into the file `answer`."""
    before, checkpoint, cell, profile, plugins = pickle.load(sys.stdin.buffer)  # noqa: S301  # of our own parent
    current().load_sources(plugins)
    with ExitStack() as stack:
        if profile:
            from pytest_llmdevice.simulation.simulate import simulate

            stack.enter_context(simulate(profile))
        target: Any = pickle.loads(before)  # noqa: S301  # of the process that started this
        found = import_module(target) if isinstance(target, ModuleName) else target
        loaded = Loaded.load(found, Path(checkpoint), cell)
        if loaded.model is None:
            sys.exit("not loaded")
        problems = problems_of(loaded.model, loaded.reference, cell)
    answer.write_bytes(pickle.dumps(frozenset((finding.where, finding.actual) for _, finding in problems)))


if __name__ == "__main__":
    # By its own name: what is pickled is of that module.
    import_module("pytest_llmdevice.checks.lone_load").main(Path(sys.argv[1]))
