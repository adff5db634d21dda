"""Optimizers that step all tensors of one device at once."""

from __future__ import annotations

from typing import Any

import torch

from pytest_llmdevice.simulation.functions import Functions
from pytest_llmdevice.simulation.patches import Patches


def install(functions: Functions, patches: Patches) -> None:
    """Have the optimizers group their parameters by the simulated device and the dtype: C++ knows one device only."""

    def group(lists: list[list[torch.Tensor | None]], with_indices: bool = False) -> dict[Any, Any]:
        groups: dict[Any, Any] = {}
        for position, row in enumerate(zip(*(each or [None] * len(lists[0]) for each in lists), strict=True)):
            first = row[0]
            assert first is not None
            columns, indices = groups.setdefault((functions.place_of(first), first.dtype), ([[] for _ in lists], []))
            for column, tensor in zip(columns, row, strict=True):
                column.append(tensor)
            if with_indices:
                indices.append(position)
        for columns, _ in groups.values():
            # A list that the optimizer does not use is empty, in every group.
            columns[:] = [column if given else [] for column, given in zip(columns, lists, strict=True)]
        return groups

    patches.set(torch._C, "_group_tensors_by_device_and_dtype", group)
