"""Replaces the C functions of `torch.cuda` for NVIDIA and AMD cards."""

from __future__ import annotations

import copy
import enum
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import torch

from pytest_llmdevice.simulation import visibility
from pytest_llmdevice.simulation.driver import parallel, properties, statistics
from pytest_llmdevice.simulation.driver.runtime import (
    FunctionTable,
    memory_info,
    runtime_functions,
    set_functions,
    unsupported,
)
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.streams import Streams

_ARCHITECTURES: Final = {
    "12.6": "sm_50 sm_60 sm_70 sm_75 sm_80 sm_86 sm_90",
    "13.0": "sm_75 sm_80 sm_86 sm_90 sm_100 sm_120",
}
"""CUDA toolkit -> the architectures that the released PyTorch for it is built for."""


class _Error(enum.IntEnum):
    success = 0
    invalidValue = 1  # noqa: N815 - CUDA's names
    memoryAllocation = 2  # noqa: N815
    invalidDevice = 101  # noqa: N815


def install(machine: Machine, streams: Streams, patches: Patches) -> None:
    """Make `torch.cuda` report the cards of `machine`."""
    profile = machine.profile
    amd = profile.kind == "rocm"
    patches.set(torch.version, "hip", profile.toolkit if amd else None)
    patches.set(torch.version, "cuda", None if amd else profile.toolkit)
    table = runtime_functions(machine, streams) | _functions(machine, streams) | {"init": _initialiser(machine)}
    set_functions(patches, torch._C, "_cuda_", table)
    patches.set(torch._C, "_has_cuda", True)
    cudart = _cudart(machine)
    patches.set(torch._C, "_cudart", cudart)
    cards = properties.Properties(machine, properties.cuda_properties)
    cuda: Any = torch.cuda
    for name, value in {
        "_cudart": cudart,
        "_exchange_device": table["exchangeDevice"],
        "_maybe_exchange_device": table["maybeExchangeDevice"],
        "_get_device_properties": cards.of,
        "_CudaDeviceProperties": properties.CardProperties,
        "_initialized": machine.in_use,
        # Calls that PyTorch queued for the first use of a real card stay in their queue; seeds are for any card.
        "_queued_calls": [],
        "_lazy_seed_tracker": _copied(torch.cuda._lazy_seed_tracker),
        "_is_in_bad_fork": table["isInBadFork"],
        "_cached_device_count": machine.count if machine.in_use else None,
        # Until the runtime is initialised, `device_count` asks the management libraries, which read no variable.
        "_raw_device_count_nvml": lambda: profile.count,
        "_raw_device_uuid_nvml": lambda: list(visibility.card_uuids(profile)),
        "_raw_device_count_amdsmi": lambda: profile.count,
        "_raw_device_uuid_amdsmi": lambda: [text.removeprefix("GPU-") for text in visibility.card_uuids(profile)],
        # PyTorch would make a tensor to find out; all simulated cards support bfloat16.
        "_check_bf16_tensor_supported": lambda _device: True,
        "default_generators": machine.generators[: machine.count] if machine.in_use else (),
    }.items():
        patches.set(cuda, name, value)
    patches.set(cuda.graphs, "_cuda_isCurrentStreamCapturing", table["isCurrentStreamCapturing"])
    _refuse_graphs(patches)
    # PyTorch's would warn that there is no cuDNN.
    patches.set(torch.backends.cudnn, "is_acceptable", lambda _tensor: False)
    patches.set(cuda.nvtx, "_nvtx", _nvtx())
    parallel.install(machine, patches)
    if machine.hides_real_cards:
        # What these would read is about real cards.
        for name in ("_device_count_nvml", "_device_count_amdsmi"):
            patches.set(cuda, name, lambda: -1)
    patches.set(machine, "initialise", cuda._lazy_init)


def _initialiser(machine: Machine) -> Callable[[], None]:
    """What PyTorch calls when a card is first used."""
    engine = "HIP" if machine.profile.kind == "rocm" else "CUDA"

    def init() -> None:
        if not machine.count:
            raise RuntimeError(f"No {engine} GPUs are available")
        machine.use()
        cuda: Any = torch.cuda
        cuda.default_generators = machine.generators[: machine.count]

    return init


def _copied(tracker: Any) -> Any:
    """A copy of what keeps the seeds for cards that are not used yet: those set in a simulation stay in it."""
    made = copy.copy(tracker)
    made.call_order = list(tracker.call_order)
    return made


def _functions(machine: Machine, streams: Streams) -> FunctionTable:
    def do_nothing(*_: Any, **__: Any) -> None: ...

    def default_stream(index: int) -> tuple[int, int, int]:
        machine.check_index(index)
        return 0, index, streams.code

    debug = [0]
    amd = machine.profile.kind == "rocm"
    toolkit = machine.profile.toolkit.split(".")
    architectures = " ".join(dict.fromkeys(card.architecture for card in machine.profile.cards))
    built_for = architectures if amd else _ARCHITECTURES.get(machine.profile.toolkit, _ARCHITECTURES["13.0"])
    return {
        "synchronize": do_nothing,
        "ipc_collect": do_nothing,
        "sleep": do_nothing,
        "getDefaultStream": default_stream,
        "getArchFlags": lambda: built_for,
        "getCompiledVersion": lambda: int(toolkit[0]) * 1000 + int(toolkit[1]) * 10,
        "getAllocatorBackend": lambda: "native",
        "set_sync_debug_mode": lambda mode: debug.__setitem__(0, mode),
        "get_sync_debug_mode": lambda: debug[0],
        "clearCublasWorkspaces": do_nothing,
        "getCurrentBlasHandle": unsupported("a handle of cuBLAS"),
        "getCurrentSolverHandle": unsupported("a handle of cuSOLVER"),
        "hostMemoryStats": statistics.pinned_memory_statistics,
        "resetAccumulatedHostMemoryStats": do_nothing,
        "resetPeakHostMemoryStats": do_nothing,
        "cudaCachingAllocator_is_enabled": lambda: True,
        "cudaCachingAllocator_enable": do_nothing,
        "cudaCachingAllocator_raw_alloc": unsupported("raw memory of a card"),
        "cudaCachingAllocator_raw_delete": unsupported("raw memory of a card"),
        "customAllocator": unsupported("an allocator of one's own"),
        "isHistoryEnabled": lambda: False,
        "record_memory_history": do_nothing,
        "record_memory_history_legacy": do_nothing,
        "attach_out_of_memory_observer": do_nothing,
        "jiterator_compile_and_launch_kernel": unsupported("a kernel in CUDA's language"),
        "lock_mutex": do_nothing,
        "unlock_mutex": do_nothing,
    }


def _cudart(machine: Machine) -> SimpleNamespace:
    """What `torch.cuda.cudart()` returns."""
    return SimpleNamespace(
        cudaError=_Error,
        cudaGetErrorString=lambda error: _Error(error).name,
        cudaMemGetInfo=lambda index: memory_info(machine, index),
        cudaProfilerStart=lambda: _Error.success,
        cudaProfilerStop=lambda: _Error.success,
        cudaHostRegister=lambda _address, _size, _flags: _Error.success,
        cudaHostUnregister=lambda _address: _Error.success,
        cudaStreamCreate=lambda _address: _Error.success,
        cudaStreamDestroy=lambda _address: _Error.success,
    )


def _nvtx() -> SimpleNamespace:
    """The NVTX functions, without a profiler to receive their marks; `rangePushA` and `rangePop` return the depth."""
    depth = [0]

    def push(_: str) -> int:
        depth[0] += 1
        return depth[0] - 1

    def pop() -> int:
        depth[0] -= 1
        return depth[0]

    return SimpleNamespace(
        rangePushA=push,
        rangePop=pop,
        rangeStartA=lambda _: 0,
        rangeEnd=lambda _: None,
        markA=lambda _: None,
        deviceRangeStart=lambda _message, _stream: object(),
        deviceRangeEnd=lambda _handle, _stream: None,
    )


def _refuse_graphs(patches: Patches) -> None:
    refused = unsupported("a CUDA graph")
    graphs: Any = torch.cuda.graphs
    patches.set(graphs.CUDAGraph, "__new__", refused)
    patches.set(graphs.graph, "__init__", refused)
    patches.set(graphs, "_graph_pool_handle", refused)
    for owner in (torch.cuda, graphs):
        patches.set(owner, "make_graphed_callables", refused)
