"""One load of one cell: timed, with the process left as it was, and the model given back afterwards."""

from __future__ import annotations

import gc
import os
import random
import time
import traceback
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.errors import UnsupportedByLibrary
from pytest_llmdevice.loading.target import CONTRACT, Target, validate
from pytest_llmdevice.matrix.cell import Cell

if TYPE_CHECKING:
    from torch import nn


@dataclass
class Loaded:
    """The outcome of one load: a model, an error, or the reason why a library cannot do it.

    Attributes:
        model: the loaded model; None when there is none.
        seconds: how long the target took.
        error: the report of a failure, its first line naming the cell and the cause; empty when there is none.
        unsupported: why an installed library cannot do what the cell asks; empty when it can.
    """

    model: Any = None
    seconds: float = 0.0
    error: str = ""
    unsupported: str = ""

    @classmethod
    def load(cls, target: Target, checkpoint: Path, cell: Cell) -> Loaded:
        """Have `target` load `checkpoint` for `cell`. Never raises for what the target does."""
        from torch import nn

        validate(target, "fixture llm_target")
        collect_leftovers()
        started = time.perf_counter()
        try:
            with unchanged_process():
                model: object = target.load(str(checkpoint), cell)
        except UnsupportedByLibrary as error:
            return cls(unsupported=str(error))
        except Exception as error:  # noqa: BLE001  # whatever the code under test raises is its result
            return cls(error=_report(cell, error))
        if not isinstance(model, nn.Module):
            return cls(error=f"{cell.id}: load returned {type(model).__name__}, not a torch.nn.Module ({CONTRACT})")
        _LAST.append(weakref.ref(model))
        return cls(model, time.perf_counter() - started)

    def release(self) -> None:
        """Let go of the model and give cached device memory back."""
        self.model = None
        import torch

        if _card_in_use():
            torch.cuda.empty_cache()


_LAST: list[weakref.ref[nn.Module]] = []


def collect_leftovers() -> None:
    """Collect garbage if a model of an earlier load is still there.

    Offloaded models are part of a cycle through their hooks; all others go by themselves, and a collection
    with transformers in memory costs more than a load.
    """
    if any(reference() is not None for reference in _LAST):
        gc.collect()
    _LAST.clear()


@contextmanager
def unchanged_process() -> Iterator[None]:
    """Put back what a load may change: environment, random states, default dtype and device, threads, current card."""
    import numpy as np
    import torch

    environment = dict(os.environ)
    python_state, torch_state = random.getstate(), torch.get_rng_state()
    numpy_state = np.random.get_state()  # noqa: NPY002  # the global one, which `transformers.set_seed` seeds
    threads = torch.get_num_threads()
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    card = torch.cuda.current_device() if _card_in_use() else None
    grad = torch.is_grad_enabled()
    try:
        yield
    finally:
        if dict(os.environ) != environment:
            os.environ.clear()
            os.environ.update(environment)
        random.setstate(python_state)
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)  # noqa: NPY002  # likewise
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(device)
        if card is not None:
            torch.cuda.set_device(card)
        torch.set_grad_enabled(grad)


_FRAMES = 8
"""Innermost frames shown of a failed load: the loader's and the library's, not the way to them."""


def _report(cell: Cell, error: Exception) -> str:
    lines = str(error).strip().splitlines() or ["(no message)"]
    trace = "".join(traceback.format_exception(error, limit=-_FRAMES))
    return f"{cell.id} did not load: {type(error).__name__}: {lines[0]}\n\n{trace}"


def _card_in_use() -> bool:
    import torch

    cuda: Any = torch.cuda
    return bool(cuda.is_available() and cuda.is_initialized())
