"""Installs all parts of a simulation in the process, in the order that they need.

Each part is a module with a function `install(...)`, which makes its changes through a `Patches`; therefore the
parts are imported as modules and called as `storages.install(...)`.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module
from typing import Any

import torch

from pytest_llmdevice.simulation import (
    autocast,
    backward,
    driver,
    fast_paths,
    libraries,
    optimizers,
    representation,
    storages,
    subclasses,
    threads,
)
from pytest_llmdevice.simulation.driver.runtime import unsupported
from pytest_llmdevice.simulation.functions import FunctionMode
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.tags import Tags


def install(machine: Machine, tags: Tags, mode: FunctionMode, patches: Patches) -> None:
    """Make the process see the cards of `machine`; `patches.undo()` takes it back."""
    libraries.install(machine, patches)
    driver.install(machine, tags, patches)
    storages.install(machine, tags, patches)
    representation.install(patches)
    subclasses.install(mode, patches)
    autocast.install(machine, patches)
    backward.install(mode, patches)
    threads.install(mode, patches)
    fast_paths.install(mode, patches)
    _restore_default_device(machine, patches)
    # The compiler would trace the simulation's own code into a compiled function.
    compiler: Any = import_module("torch._dynamo.eval_frame")
    patches.set(compiler, "_stance", compiler.DynamoStance("force_eager"))
    if "torch.export" in sys.modules:
        patches.set(torch.export, "export", unsupported("torch.export"))
    optimizers.install(mode, patches)
    patches.later(partial(_take_off, mode))
    mode.__enter__()  # type: ignore[no-untyped-call]


def _take_off(mode: FunctionMode) -> None:
    """Take `mode` off the stack of function modes, if it is on it."""
    stack: Any = torch.overrides
    above = []
    while any(other is mode for other in stack._get_current_function_mode_stack()):
        top = stack._pop_mode()
        if top is not mode:
            above.append(top)
    for other in reversed(above):
        stack._push_mode(other)


def _restore_default_device(machine: Machine, patches: Patches) -> None:
    """Reset the default device at the end: one that names a simulated card would make every factory fail."""
    context: Any = torch._GLOBAL_DEVICE_CONTEXT

    def current() -> torch.device | None:
        mode = getattr(context, "device_context", None)
        return None if mode is None else mode.device

    before = current()

    def restore() -> None:
        default = current()
        if default is not None and default.type == machine.device_type:
            torch.set_default_device(before)

    patches.later(restore)
