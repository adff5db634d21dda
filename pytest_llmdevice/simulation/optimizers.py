"""Makes optimizers that step all tensors of one device at once group them by simulated device."""

from __future__ import annotations

from typing import Any

import torch

from pytest_llmdevice.simulation.functions import FunctionMode
from pytest_llmdevice.simulation.patches import Patches


def install(mode: FunctionMode, patches: Patches) -> None:
    """Group the parameters of optimizers by simulated device and dtype; C++ knows only one device, the CPU."""

    def group(lists: list[list[torch.Tensor | None]], with_indices: bool = False) -> dict[Any, Any]:
        groups: dict[Any, Any] = {}
        rows = zip(*(column or [None] * len(lists[0]) for column in lists), strict=True)
        for position, row in enumerate(rows):
            first = row[0]
            assert first is not None
            columns, indices = groups.setdefault((mode.device_of(first), first.dtype), ([[] for _ in lists], []))
            for column, tensor in zip(columns, row, strict=True):
                column.append(tensor)
            if with_indices:
                indices.append(position)
        for columns, _ in groups.values():
            # A list that the optimizer does not use is empty in every group, as PyTorch returns it.
            columns[:] = [column if tensors else [] for column, tensors in zip(columns, lists, strict=True)]
        return groups

    patches.set(torch._C, "_group_tensors_by_device_and_dtype", group)
