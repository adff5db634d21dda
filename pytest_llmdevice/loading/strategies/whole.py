"""Loads the whole model on one device: by `.to(device)`, or by a device map with one entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmdevice.loading.pretrained import from_pretrained
from pytest_llmdevice.matrix.cell import Cell

if TYPE_CHECKING:
    from torch import nn


def to(checkpoint: str, cell: Cell) -> nn.Module:
    """Load on the CPU, then `model.to(device)`."""
    if cell.quantization != "none":
        # Without a map transformers puts a quantized model on the current card, and there would be
        # nothing left to move. Moving packed weights needs bitsandbytes 0.43.2 (4 bit), 0.48 (8 bit).
        return from_pretrained(checkpoint, cell, device_map={"": "cpu"}).to(cell.torch_device)
    return from_pretrained(checkpoint, cell).to(cell.torch_device)


def device_map(checkpoint: str, cell: Cell) -> nn.Module:
    """Load with `device_map={"": device}`: each tensor goes to its device as it is read."""
    return from_pretrained(checkpoint, cell, device_map={"": cell.torch_device})
