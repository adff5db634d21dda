"""Defines the C functions that `torch.cuda` and `torch.xpu` both have, and helpers to install functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, NoReturn

from pytest_llmdevice.errors import SimulationError
from pytest_llmdevice.simulation.driver import statistics
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.memory import Pool
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.streams import Streams

FunctionTable = dict[str, Callable[..., Any]]
"""Name of a C function -> the Python function that replaces it."""

_CachedFunction: Any = type(functools.cache(lambda: None))


def runtime_functions(machine: Machine, streams: Streams) -> FunctionTable:
    """The functions that both runtimes have, by name without the prefix `_cuda_` or `_xpu_`."""

    def set_device(index: int) -> None:
        machine.current = index

    def exchange(index: int) -> int:
        if index < 0:
            return -1
        before, machine.current = machine.current, index
        return before

    def current_stream(index: int) -> tuple[int, int, int]:
        return streams.current(index), index, streams.code

    def set_stream(stream_id: int, device_index: int, device_type: int) -> None:
        streams.select(stream_id, device_index)

    def can_access_peer(index: int, peer: int) -> bool:
        machine.check_index(index)
        machine.check_index(peer)
        return index != peer

    return {
        "init": machine.use,
        "isInBadFork": lambda: False,
        "getDeviceCount": lambda: machine.count,
        "getDevice": lambda: machine.current,
        "setDevice": set_device,
        "exchangeDevice": exchange,
        "maybeExchangeDevice": exchange,
        "canDeviceAccessPeer": can_access_peer,
        "getCurrentStream": current_stream,
        "getCurrentRawStream": streams.current,
        "setStream": set_stream,
        "getStreamFromExternal": lambda pointer, index: (pointer, index, streams.code),
        "isCurrentStreamCapturing": lambda: False,
        **_memory(machine),
    }


def _memory(machine: Machine) -> FunctionTable:
    def set_fraction(fraction: float, index: int) -> None:
        pool_of(machine, index).limit(fraction)

    def empty_cache(*_: Any) -> None:
        for pool in machine.pools:
            pool.empty_cache()

    def snapshot(*_: Any) -> dict[str, Any]:
        traces: list[list[Any]] = [[] for _ in machine.devices]
        return {"segments": [], "device_traces": traces, "allocator_settings": {}, "external_annotations": []}

    return {
        "emptyCache": empty_cache,
        "memoryStats": lambda index: statistics.allocator_statistics(pool_of(machine, index)),
        "resetPeakMemoryStats": lambda index: pool_of(machine, index).reset_peaks(),
        "resetAccumulatedMemoryStats": lambda index: pool_of(machine, index).reset_sums(),
        "getMemoryFraction": lambda index: pool_of(machine, index).fraction,
        "setMemoryFraction": set_fraction,
        "getMemoryInfo": lambda index: memory_info(machine, index),
        "memorySnapshot": snapshot,
        "recordMemoryHistory": _do_nothing,
    }


def pool_of(machine: Machine, index: int) -> Pool:
    """The memory of a card.

    Raises:
        RuntimeError: there is no such card.
    """
    if not 0 <= index < len(machine.devices):
        raise RuntimeError(f"Invalid device argument {index}: did you call init?")
    return machine.pools[index]


def memory_info(machine: Machine, index: int) -> tuple[int, int]:
    """Free and total bytes of a card, as the driver counts them.

    Raises:
        RuntimeError: there is no such card.
    """
    machine.check_index(index)
    return machine.pools[index].free, machine.pools[index].total


def set_functions(patches: Patches, owner: Any, prefix: str, table: FunctionTable) -> None:
    """Set every function of a table on `owner`, under its name with the prefix."""
    for name, function in table.items():
        patches.set(owner, prefix + name, function)


def clear_caches(patches: Patches, modules: Iterable[ModuleType]) -> None:
    """Empty the caches of the functions in `modules`, now and when the changes are reverted.

    It must be called before the changes are made, so that it runs last when they are reverted.
    """
    for module in modules:
        for value in list(vars(module).values()):
            if isinstance(value, _CachedFunction):
                value.cache_clear()
                patches.later(value.cache_clear)


def unsupported(what: str) -> Callable[..., NoReturn]:
    """A function that raises a SimulationError, because `what` cannot be simulated."""

    def refused(*_: Any, **__: Any) -> NoReturn:
        raise SimulationError(f"{what} cannot be simulated: it needs a real card")

    return refused


def replay_seed(module: Any) -> None:
    """Repeat earlier calls of `torch.manual_seed` for the new cards, as PyTorch does on their first use."""
    tracker = getattr(module, "_lazy_seed_tracker", None)
    for call in tracker.get_calls() if tracker is not None else ():
        if call:
            call[0]()


def _do_nothing(*_: Any, **__: Any) -> None: ...
