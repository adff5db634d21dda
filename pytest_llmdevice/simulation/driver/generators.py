"""Replaces `torch.Generator` by a class that also makes generators of simulated cards."""

from __future__ import annotations

from typing import Any

import torch

from pytest_llmdevice.simulation.generators import CardGenerator
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.patches import Patches

# Inside a simulation `torch.Generator` is the factory below; this name stays PyTorch's class.
_Real: Any = torch._C.Generator


class _Factory(type(_Real)):  # type: ignore[misc]
    """The metaclass of `torch.Generator` in a simulation: it makes generators of both kinds and accepts both."""

    machine: Machine

    def __call__(cls, device: torch.device | str | int | None = None) -> Any:
        if "machine" not in vars(cls):  # a user's subclass of it
            return super().__call__() if device is None else super().__call__(device)
        machine = cls.machine
        if isinstance(device, int) and not isinstance(device, bool):
            device = torch.device(machine.device_type, device)
        # PyTorch itself refuses what is no device.
        target = torch.device(device) if isinstance(device, (str, torch.device)) else None
        if target is None or target.type != machine.device_type:
            return _Real() if device is None else _Real(device)
        if not 0 <= (target.index or 0) < len(machine.devices):
            raise RuntimeError("The device_index is invalid.")
        return CardGenerator(machine.resolve(target))

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _Real) if "machine" in vars(cls) else super().__instancecheck__(instance)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _Real) if "machine" in vars(cls) else super().__subclasscheck__(subclass)


def install(machine: Machine, patches: Patches) -> None:
    """Make `torch.Generator(device)` know the cards of `machine`."""
    # PyTorch warns of many cards once in a process.
    patches.set(torch.random, "_fork_rng_warned_already", torch.random._fork_rng_warned_already)
    members = {"machine": machine, "__module__": _Real.__module__, "__doc__": _Real.__doc__}
    patches.set(torch, "Generator", _Factory("Generator", (_Real,), members))
