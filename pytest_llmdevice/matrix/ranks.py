"""Says which cells several processes load together, and on which device each of them is."""

from __future__ import annotations

from dataclasses import replace

from pytest_llmdevice.matrix.axes import DeviceKind, Strategy
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import current


def ranks_of(cell: Cell) -> int:
    """How many processes load `cell` together; 1 for all ordinary ones."""
    strategy = current().of(Strategy).get(cell.strategy)
    return 1 if strategy is None else strategy.ranks


def is_sharded(cell: Cell) -> bool:
    """Whether each process has a part of the weights of `cell`."""
    strategy = current().of(Strategy).get(cell.strategy)
    return strategy is not None and strategy.shards


def of_rank(cell: Cell, rank: int) -> Cell:
    """What the process of number `rank` is asked for: `cell` on the device of that number; on a cpu, `cell` itself."""
    kind = current().of(DeviceKind).get(cell.kind)
    if not rank or kind is None or not kind.indexed:
        return cell
    return replace(cell, device=f"{kind.torch_type}:{cell.index + rank}")
