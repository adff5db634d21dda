"""Replaces the C functions of `torch.nn.DataParallel`, which split tensors over cards and join them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pytest_llmdevice.simulation.driver.runtime import set_functions
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.patches import Patches

Tensor = torch.Tensor


def install(machine: Machine, patches: Patches) -> None:
    """Replace the functions of `torch._C` that `torch.nn.parallel.comm` calls."""
    device_type = machine.device_type

    def scatter(tensor: Tensor, devices: Sequence[int], sizes: Any, dim: int, _streams: Any) -> tuple[Tensor, ...]:
        parts = tensor.chunk(len(devices), dim) if sizes is None else torch.split_with_sizes(tensor, list(sizes), dim)
        return tuple(part.to(torch.device(device_type, index)) for part, index in zip(parts, devices, strict=False))

    def gather(tensors: Sequence[Tensor], dim: int, destination: int | None) -> Tensor:
        device = torch.device("cpu") if destination == -1 else machine.resolve(destination or 0)
        return torch.cat([tensor.to(device) for tensor in tensors], dim)

    def broadcast(tensor: Tensor, devices: Sequence[int]) -> tuple[Tensor, ...]:
        return tuple(tensor.to(torch.device(device_type, index)) for index in devices)

    def broadcast_coalesced(tensors: Sequence[Tensor], devices: Sequence[int], _size: int) -> list[list[Tensor]]:
        return [[tensor.to(torch.device(device_type, index)) for tensor in tensors] for index in devices]

    table: dict[str, Any] = {
        "scatter": scatter,
        "gather": gather,
        "broadcast": broadcast,
        "broadcast_coalesced": broadcast_coalesced,
    }
    # Simulated cards have no NCCL to communicate.
    patches.set(torch.cuda.nccl, "is_available", lambda _tensors: False)
    set_functions(patches, torch._C, "_", table)
