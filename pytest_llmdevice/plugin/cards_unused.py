"""Keeps a process from beginning to use cards: what is forked from it can use them only if it did not."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Final, NoReturn

from pytest_llmdevice.simulation.patches import Patches

if TYPE_CHECKING:
    from pytest_llmdevice.matrix.cell import Cell

IN_USE: Final = (
    "not run: pytest's own process has begun to use its card, and no process that is forked from it can: an import "
    "did, or a test without a cell; leave that to the tests of cells, or run without --llm-isolate"
)
"""What is said of a cell that cannot be handed over."""

_NVML: Final = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""With it PyTorch says whether there are cards without beginning to use them."""


class CardsOutOfReach(BaseException):
    """A module wants to use a card.

    No `Exception`, so that its import ends: what catches one (bitsandbytes does) goes on for the CPU alone, in the
    processes to come too.
    """


def answer_without_using() -> Callable[[], None]:
    """Have PyTorch ask the driver's monitor for cards, here and in children; returns what takes that back."""
    if _NVML in os.environ:
        return lambda: None
    os.environ[_NVML] = "1"

    def take_back() -> None:
        os.environ.pop(_NVML, None)

    return take_back


def import_without_using(names: Sequence[str]) -> None:
    """Import modules, but for those whose import begins to use a card (bitsandbytes, and what needs it)."""
    with warnings.catch_warnings(), _out_of_reach():
        warnings.simplefilter("ignore")
        for name in names:
            if name not in sys.modules:
                with suppress(Exception, SystemExit, CardsOutOfReach):
                    import_module(name)


def cards_in_use(cell: Cell) -> bool:
    """Whether this process has begun to use cards of the kind that `cell` is for, and not simulated ones."""
    if "torch" not in sys.modules or cell.simulated or cell.torch_device.type == "cpu":
        return False
    import torch

    return bool(getattr(getattr(torch, cell.torch_device.type, None), "is_initialized", bool)())


@contextmanager
def _out_of_reach() -> Iterator[None]:
    """Have every beginning to use a card raise."""
    import torch

    patches = Patches()
    try:
        for kind in (torch.cuda, torch.xpu):
            # All of PyTorch's functions for cards call it first; some modules have it by a name of their own.
            for module in (kind, kind.memory, kind.random):
                patches.set(module, "_lazy_init", _refuse)
        yield
    finally:
        patches.undo()


def _refuse() -> NoReturn:
    raise CardsOutOfReach
