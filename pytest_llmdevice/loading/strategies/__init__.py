"""How weights reach devices: one function for each strategy, by its name in the matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from pytest_llmdevice.loading.strategies.automatic import automatic
from pytest_llmdevice.loading.strategies.mapped import cpu_offload, disk_offload, split
from pytest_llmdevice.loading.strategies.shared_memory import shared_memory
from pytest_llmdevice.loading.strategies.whole import device_map, to
from pytest_llmdevice.matrix.cell import Cell

if TYPE_CHECKING:
    from torch import nn

Strategy: TypeAlias = "Callable[[str, Cell], nn.Module]"

STRATEGIES: Final[dict[str, Strategy]] = {
    "to": to,
    "device-map": device_map,
    "auto": automatic,
    "balanced": automatic,
    "sequential": automatic,
    "split": split,
    "cpu-offload": cpu_offload,
    "disk-offload": disk_offload,
    "shared-memory": shared_memory,
}
