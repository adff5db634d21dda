"""One load of one cell: timed, with the process left as it was, and the model given back afterwards."""

from __future__ import annotations

import gc
import traceback
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.errors import UnsupportedByLibrary, of_target
from pytest_llmdevice.loading.return_value import not_a_model
from pytest_llmdevice.loading.target import CONTRACT, Target, validate
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.monitoring.change import Change
from pytest_llmdevice.monitoring.process_state import unchanged_process
from pytest_llmdevice.monitoring.resources import Measures, Meter, keep_measures

if TYPE_CHECKING:
    from torch import nn


@dataclass
class Loaded:
    """The outcome of one load: a model, an error, or the reason why a library cannot do it.

    Attributes:
        model: the loaded model; None when there is none.
        seconds: how long the target took.
        error: the report of a failure, its first line naming the cell and the cause; empty when there is none.
        cause: the cause alone, in a line.
        exception: what the target raised, without its traceback; None when it raised nothing.
        unsupported: why an installed library cannot do what the cell asks; empty when it can.
        measures: what the load took, and where the tensors are; None when there is no model.
    """

    model: Any = None
    seconds: float = 0.0
    error: str = ""
    cause: str = ""
    exception: BaseException | None = None
    unsupported: str = ""
    measures: Measures | None = None

    @classmethod
    def load(cls, target: Target, checkpoint: Path, cell: Cell, *, beside: bool = False) -> Loaded:
        """Have `target` load `checkpoint` for `cell`. Never raises for what the target does.

        Args:
            target: the code under test.
            checkpoint: a local folder.
            cell: what to ask for.
            beside: whether an earlier model is meant to be there still: garbage is not collected then.
        """
        from torch import nn

        validate(target, "fixture llm_target")
        if not beside:
            collect_leftovers()
        before = _files(checkpoint)
        try:
            with unchanged_process() as changes, Meter() as meter:
                model: object = target.load(str(checkpoint), cell)
        except UnsupportedByLibrary as error:
            return cls(unsupported=str(error))
        except of_target() as error:
            return cls._failed(cell, error)
        if not isinstance(model, nn.Module):
            cause = f"load returned {not_a_model(model)}"
            return cls(error=f"{cell.id}: {cause}\n{CONTRACT}", cause=cause)
        _LAST.append(weakref.ref(model))
        measures = keep_measures(model, meter.measures)
        _CHANGES[model] = (*changes, *_written(checkpoint, before))
        return cls(model, measures.seconds, measures=measures)

    @classmethod
    def _failed(cls, cell: Cell, error: BaseException) -> Loaded:
        cause, trace = _first_line(error), "".join(traceback.format_exception(error, limit=-_FRAMES))
        if isinstance(error, SystemExit):
            cause += " (the loader ends the process: load must return, not call sys.exit or a command's main)"
        _forget_frames(error)
        return cls(error=f"{cell.id} did not load: {cause}\n\n{trace}", cause=cause, exception=error)

    def release(self) -> None:
        """Let go of the model and give cached device memory back."""
        self.model = None
        import torch

        if _card_in_use():
            torch.cuda.empty_cache()


def _files(checkpoint: Path) -> dict[str, tuple[int, int]]:
    """The size and the time of each file of a checkpoint; empty for what is no folder."""
    try:
        found = {path.name: path.stat() for path in checkpoint.iterdir() if path.is_file()}
    except OSError:
        return {}
    return {name: (status.st_size, status.st_mtime_ns) for name, status in found.items()}


def _written(checkpoint: Path, before: Mapping[str, tuple[int, int]]) -> Iterator[Change]:
    """The files of a checkpoint that a load has changed; new ones, as a cache of its own, are no matter."""
    after = _files(checkpoint)
    for name, status in before.items():
        if after.get(name) != status:
            became = "written to" if name in after else "removed"
            yield Change("checkpoint", f"{name} of the checkpoint", "left as it was", became)


_CHANGES: weakref.WeakKeyDictionary[nn.Module, tuple[Change, ...]] = weakref.WeakKeyDictionary()


def changes_of(model: nn.Module) -> tuple[Change, ...] | None:
    """What the load of `model` changed of the process; None for a model that no target was asked for."""
    return _CHANGES.get(model)


_LAST: list[weakref.ref[nn.Module]] = []


def collect_leftovers() -> None:
    """Collect garbage if a model of an earlier load is still there.

    Offloaded models are part of a cycle through their hooks; all others go by themselves, and a collection
    with transformers in memory costs more than a load.
    """
    if any(reference() is not None for reference in _LAST):
        gc.collect()
    _LAST.clear()


_FRAMES = 8
"""Innermost frames shown of a failed load: the loader's and the library's, not the way to them."""


def _first_line(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as second:  # noqa: BLE001  # an exception of the target may fail to say what it is
        text = f"(its text cannot be had: {type(second).__name__})"
    lines = text.strip().splitlines() or ["(no message)"]
    return f"{type(error).__name__}: {lines[0]}"


def _forget_frames(error: BaseException | None) -> None:
    """Let go of the frames of `error` and of what it came from: they keep half-loaded models alive."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _card_in_use() -> bool:
    import torch

    cuda: Any = torch.cuda
    return bool(cuda.is_available() and cuda.is_initialized())
