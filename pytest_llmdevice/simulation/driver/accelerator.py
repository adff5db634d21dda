"""`torch.accelerator`, PyTorch's one name for whatever cards a machine has."""

from __future__ import annotations

from typing import Any

import torch

from pytest_llmdevice.simulation.driver.runtime import Functions, functions, refuse, set_functions
from pytest_llmdevice.simulation.driver.streams import generic
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.streams import Streams


def install(machine: Machine, streams: Streams, patches: Patches) -> None:
    """Make `torch.accelerator` report the cards of `machine`."""
    table = functions(machine, streams)

    def accelerator(*_: Any) -> torch.device:
        return torch.device(machine.device_type)

    def stream(index: int) -> Any:
        return generic(streams, streams.current(index), index)

    def set_stream(stream: Any) -> None:
        if stream.device.type != machine.device_type:
            raise RuntimeError(
                f"stream's device type {stream.device.type} doesn't match the current accelerator {machine.device_type}"
            )
        streams.select(stream.stream_id, stream.device_index)

    def nothing() -> None: ...

    answers: Functions = {
        "getAccelerator": accelerator,
        "deviceCount": table["getDeviceCount"],
        "getDeviceIndex": table["getDevice"],
        "setDeviceIndex": table["setDevice"],
        "exchangeDevice": table["exchangeDevice"],
        "maybeExchangeDevice": table["maybeExchangeDevice"],
        "getDeviceCapability": lambda index: _capability(machine, index),
        "getStream": stream,
        "setStream": set_stream,
        "synchronizeDevice": machine.check,
        "isAllocatorInitialized": lambda: True,
        "emptyCache": table["emptyCache"],
        "emptyHostCache": nothing,
        "getDeviceStats": table["memoryStats"],
        "resetAccumulatedStats": table["resetAccumulatedMemoryStats"],
        "resetPeakStats": table["resetPeakMemoryStats"],
        "getMemoryInfo": table["getMemoryInfo"],
        "hooks_device_count": table["getDeviceCount"],
        "hooks_set_current_device": table["setDevice"],
        "hooks_get_current_device": table["getDevice"],
        "hooks_exchange_device": table["exchangeDevice"],
        "hooks_maybe_exchange_device": table["maybeExchangeDevice"],
    }
    set_functions(patches, torch._C, "_accelerator_", answers)
    patches.set(torch._C, "_get_accelerator", accelerator)
    module: Any = torch.accelerator
    if hasattr(module, "Graph"):
        patches.set(module.Graph, "__new__", refuse("a graph of an accelerator"))


def _capability(machine: Machine, index: int) -> dict[str, set[torch.dtype]]:
    machine.check(index)
    every = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    refused = {getattr(torch, name) for name in machine.profile.refused}
    return {"supported_dtypes": {dtype for dtype in every - refused if not str(dtype).startswith("torch.q")}}
