"""What changes in the process while a simulation lasts, in the order in which it must."""

from __future__ import annotations

import sys
from typing import Any

import torch

from pytest_llmdevice.simulation import autocast, backward, driver, libraries, optimizers, shortcut, storages, threads
from pytest_llmdevice.simulation.driver.runtime import refuse
from pytest_llmdevice.simulation.functions import Functions
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.representation import install as install_representation
from pytest_llmdevice.simulation.tags import Tags


def install(machine: Machine, tags: Tags, functions: Functions, patches: Patches) -> None:
    """Make the process see `machine`; `patches.undo()` takes it back."""
    libraries.before(patches)
    driver.install(machine, tags, patches)
    storages.install(machine, tags, patches)
    install_representation(patches)
    autocast.install(machine, patches)
    backward.install(functions, patches)
    threads.install(functions, patches)
    shortcut.install(patches)
    _restore_default_device(machine, patches)
    # A compiled function would be traced with the pretence in it.
    patches.enter(torch.compiler.set_stance("force_eager"))
    if "torch.export" in sys.modules:
        patches.set(torch.export, "export", refuse("torch.export"))
    optimizers.install(functions, patches)
    patches.enter(functions)


def _restore_default_device(machine: Machine, patches: Patches) -> None:
    """A default device that names a simulated card would make every factory fail afterwards."""
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
