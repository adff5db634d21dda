"""Replaces the C functions of `torch.accelerator`, PyTorch's common name for all types of cards."""

from __future__ import annotations

from typing import Any

import torch

from pytest_llmdevice.simulation.driver.runtime import FunctionTable, runtime_functions, set_functions, unsupported
from pytest_llmdevice.simulation.driver.streams import generic_stream
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.streams import Streams


def install(machine: Machine, streams: Streams, patches: Patches) -> None:
    """Make `torch.accelerator` report the cards of `machine`."""
    runtime = runtime_functions(machine, streams)

    def accelerator(*_: Any) -> torch.device:
        return torch.device(machine.device_type)

    def stream(index: int) -> Any:
        return generic_stream(streams, streams.current(index), index)

    def set_stream(stream: Any) -> None:
        if stream.device.type != machine.device_type:
            raise RuntimeError(
                f"stream's device type {stream.device.type} doesn't match the current accelerator {machine.device_type}"
            )
        streams.select(stream.stream_id, stream.device_index)

    def do_nothing() -> None: ...

    table: FunctionTable = {
        "getAccelerator": accelerator,
        "deviceCount": runtime["getDeviceCount"],
        "getDeviceIndex": runtime["getDevice"],
        "setDeviceIndex": runtime["setDevice"],
        "exchangeDevice": runtime["exchangeDevice"],
        "maybeExchangeDevice": runtime["maybeExchangeDevice"],
        "getDeviceCapability": lambda index: _capability(machine, index),
        "getStream": stream,
        "setStream": set_stream,
        "synchronizeDevice": machine.check_index,
        "isAllocatorInitialized": lambda: True,
        "emptyCache": runtime["emptyCache"],
        "emptyHostCache": do_nothing,
        "getDeviceStats": runtime["memoryStats"],
        "resetAccumulatedStats": runtime["resetAccumulatedMemoryStats"],
        "resetPeakStats": runtime["resetPeakMemoryStats"],
        "getMemoryInfo": runtime["getMemoryInfo"],
        "hooks_device_count": runtime["getDeviceCount"],
        "hooks_set_current_device": runtime["setDevice"],
        "hooks_get_current_device": runtime["getDevice"],
        "hooks_exchange_device": runtime["exchangeDevice"],
        "hooks_maybe_exchange_device": runtime["maybeExchangeDevice"],
    }
    set_functions(patches, torch._C, "_accelerator_", table)
    patches.set(torch._C, "_get_accelerator", accelerator)
    module: Any = torch.accelerator
    if hasattr(module, "Graph"):
        patches.set(module.Graph, "__new__", unsupported("a graph of an accelerator"))


def _capability(machine: Machine, index: int) -> dict[str, set[torch.dtype]]:
    machine.check_index(index)
    every = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    refused = {getattr(torch, name) for name in machine.cards[index].refused}
    return {"supported_dtypes": {dtype for dtype in every - refused if not str(dtype).startswith("torch.q")}}
