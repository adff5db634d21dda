"""Loads with a device map that accelerate makes: `auto`, `balanced` and `sequential`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmdevice.loading.pretrained import from_pretrained
from pytest_llmdevice.matrix.cell import Cell

if TYPE_CHECKING:
    from torch import nn


def automatic(checkpoint: str, cell: Cell) -> nn.Module:
    """Load with `device_map` set to the strategy's name, over all cards that are visible.

    A cpu cell is told so: with a card in the machine, accelerate would otherwise prefer the card.
    """
    if cell.kind == "cpu":
        return from_pretrained(checkpoint, cell, device_map=cell.strategy, max_memory={"cpu": _PLENTY})
    return from_pretrained(checkpoint, cell, device_map=cell.strategy)


_PLENTY = "64GiB"
