"""Targets whose faults are those of one cell, or what a load leaves behind for the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.matrix.cell import Cell

if TYPE_CHECKING:
    import torch

_first: list[torch.dtype] = []
_loads: list[str] = []


class HalfIsWhole(BuiltinTarget):
    """Whoever asks for float16 gets float32, whatever was loaded before."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = super().load(checkpoint, cell)
        return model.float() if cell.dtype == "float16" else model


class SecondCardIsFirst(BuiltinTarget):
    """Whoever asks for cuda:1 gets cuda:0."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model: Any = super().load(checkpoint, cell)
        return model.to("cuda:0") if cell.device == "cuda:1" else model


class FirstDtype(BuiltinTarget):
    """Remembers the dtype of the first request."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        _first.append(cell.torch_dtype)
        return super().load(checkpoint, cell).to(_first[0])


class LosesItsPlace(BuiltinTarget):
    """From the second load on, the final norm stays where the first one was."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model: Any = super().load(checkpoint, cell)
        _loads.append(cell.device)
        if len(_loads) > 1:
            model.model.norm.to(_loads[0])
        return model


class FirstCard(BuiltinTarget):
    """Remembers in itself the device of its first request."""

    def __init__(self) -> None:
        self.device = ""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        self.device = self.device or cell.device
        model: Any = super().load(checkpoint, cell)
        return model.to(self.device)


def load(checkpoint: str, cell: Cell) -> Any:
    """This module is a target too, with the fault of `HalfIsWhole`."""
    return HalfIsWhole().load(checkpoint, cell)
