"""Replaces the C functions of `torch.mps` and `torch.backends.mps` for an Apple computer."""

from __future__ import annotations

import itertools
import time
from typing import Any, Final

import torch

from pytest_llmdevice.simulation.driver.runtime import FunctionTable, set_functions, unsupported
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.streams import Streams

_MACOS: Final = (15, 5)


def install(machine: Machine, streams: Streams, patches: Patches) -> None:
    """Make `torch.mps` report the device of `machine`."""
    set_functions(patches, torch._C, "_mps_", _functions(machine) | _events())
    patches.set(torch._C, "_has_mps", True)
    patches.set(torch.mps, "_default_mps_generator", machine.generators[0])
    patches.set(torch.mps, "_is_in_bad_fork", lambda: False)


def _functions(machine: Machine) -> FunctionTable:
    pool = machine.pools[0]

    def do_nothing(*_: Any) -> None: ...

    def set_fraction(fraction: float) -> None:
        # Zero means no limit, and more than 1 cannot be more than the computer's memory.
        pool.limit(min(fraction, 1.0) or 1.0)

    shader = unsupported("a shader of Metal")
    return {
        "is_available": lambda: True,
        "is_in_bad_fork": lambda: False,
        "is_on_macos_or_newer": lambda major, minor: (major, minor) <= _MACOS,
        "is_on_macos_13_or_newer": lambda minor=0: (13, minor) <= _MACOS,
        "get_name": lambda: machine.profile.card,
        "get_core_count": lambda: machine.profile.processors,
        "get_default_generator": lambda: machine.generators[0],
        "deviceSynchronize": do_nothing,
        "emptyCache": pool.empty_cache,
        "setMemoryFraction": set_fraction,
        "currentAllocatedMemory": lambda: pool.allocated,
        "driverAllocatedMemory": lambda: max(pool.reserved, pool.allocated),
        "recommendedMaxMemory": lambda: pool.total,
        "maxBufferLength": lambda: pool.total,
        "compileShader": shader,
        "loadMetalllib": shader,
        "loadMetallibFromPath": shader,
        "profilerStartTrace": do_nothing,
        "profilerStopTrace": do_nothing,
    }


def _events() -> FunctionTable:
    timed: dict[int, bool] = {}
    recorded: dict[int, int] = {}
    # Negative, because PyTorch releases events with positive numbers, possibly after the simulation has ended.
    numbers = itertools.count(-1, -1)

    def acquire(enable_timing: bool) -> int:
        number = next(numbers)
        timed[number] = enable_timing
        return number

    def record(number: int) -> None:
        recorded[number] = time.perf_counter_ns()

    def elapsed(start: int, end: int) -> float:
        if not (timed[start] and timed[end]):
            raise RuntimeError("Events must be created with argument 'enable_timing=True'")
        if start not in recorded or end not in recorded:
            raise RuntimeError("Events must be recorded before calculating elapsed time")
        return (recorded[end] - recorded[start]) / 1e6

    def do_nothing(_number: int) -> None: ...

    return {
        "acquireEvent": acquire,
        "releaseEvent": do_nothing,
        "recordEvent": record,
        "waitForEvent": do_nothing,
        "synchronizeEvent": do_nothing,
        "queryEvent": lambda _number: True,
        "elapsedTimeOfEvents": elapsed,
    }
