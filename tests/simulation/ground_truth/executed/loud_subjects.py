"""What is run on cards for what it raises: the bugs of the corpus, and those of the systems with what is right."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pytest_llmdevice.loading.target import resolve

if TYPE_CHECKING:
    from pytest_llmdevice import Cell

TESTS: Final = Path(__file__).parents[3]
"""The folder that has the corpus and the systems."""

CARDS: Final = 2

SYSTEMS: Final = {
    "ibench": "bench.local_model:LocalModelTarget",
    "infolens": "lens.llm_target",
    "qwen-tied": "chat.llm_target:ChatTarget",
    "lmp": "experts.llm_target",
}
"""The matrix of each system, and its right target. That for DCU cards loads on no build of PyTorch but ROCm's."""


class Subject(NamedTuple):
    """A target and what is asked of it.

    Attributes:
        name: the bug's name and the cell's.
        target: makes the target.
        cell: a cell on a card.
        machine: the profile with which it is simulated.
        needs: a package that the target imports, where it may be absent; empty for none.
    """

    name: str
    target: Callable[[], Any]
    cell: Cell
    machine: str
    needs: str = ""


def subjects() -> Iterator[Subject]:
    """All of them, each with another name."""
    if str(TESTS) not in sys.path:
        sys.path.insert(0, str(TESTS))
    yield from of_the_corpus()
    yield from of_the_systems()


def of_the_corpus() -> Iterator[Subject]:
    """Each bug, in its cells on cards."""
    from corpus.catalog import CASES

    for case in CASES:
        for cell in case.cells:
            if cell.kind == "cuda":
                name = f"{case.name} {cell.id.removesuffix('.sim')}"
                yield Subject(name, case.buggy, cell, case.machine or f"cuda:{CARDS}", case.needs)


def of_the_systems() -> Iterator[Subject]:
    """Each target, in one cell of each quantization, strategy and card that its matrix has."""
    from systems import projects  # noqa: F401 - puts them on the path

    for matrix, right in SYSTEMS.items():
        bugs = import_module(f"systems.bugs.{matrix.replace('-', '_')}")
        targets: dict[str, Callable[[], Any]] = {"right": lambda right=right: resolve(right).target}  # type: ignore[misc]
        targets |= {name: value for name, value in vars(bugs).items() if _is_a_target(value, bugs.__name__)}
        for cell in _cells(matrix):
            for name, target in targets.items():
                yield Subject(f"{matrix} {name} {cell.id.removesuffix('.sim')}", target, cell, f"cuda:{CARDS}")


def _is_a_target(value: object, module: str) -> bool:
    made_here = inspect.isclass(value) and value.__module__ == module
    return made_here and hasattr(value, "load") and not inspect.isabstract(value)


def _cells(matrix: str) -> Iterator[Cell]:
    from systems.examined import cells_of

    seen = set()
    for cell in cells_of(matrix).values():
        key = (cell.quantization, cell.strategy, cell.index)
        if cell.kind == "cuda" and cell.index < CARDS and key not in seen:
            seen.add(key)
            yield cell
