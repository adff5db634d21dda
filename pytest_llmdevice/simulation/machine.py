"""Holds the state of a simulated machine: its cards, the current one, and each card's memory and random generator."""

from __future__ import annotations

import threading
from typing import Any

import torch

from pytest_llmdevice.simulation.generators import CardGenerator
from pytest_llmdevice.simulation.memory import Pool
from pytest_llmdevice.simulation.profiles import Profile

_AcceleratorError: type[RuntimeError] = getattr(torch, "AcceleratorError", RuntimeError)


class _Current(threading.local):
    """The index of the current card; every thread starts with the first card, as in CUDA."""

    index = 0


class Machine:
    """The state of one simulated machine.

    Attributes:
        profile: the description of its cards.
        device_type: PyTorch's name of the cards' type.
        devices: the cards, with their indices.
        pools: the memory of each card.
        generators: the default random generator of each card.
        library_states: what the objects of a class of a library share, by the class and its attribute.
        saved_tensor_hooks: how many hooks for saved tensors are set; they get tensors in the middle of a function.
        needs_full_path: whether more than the devices of its operands decides about a call, so that the fast path is
            not enough: autocast or hooks for saved tensors have been used, or there are dtypes that the cards refuse.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.device_type = profile.device_type
        self.devices = tuple(torch.device(name) for name in profile.devices)
        self.pools = tuple(Pool(index, self.device_type, profile.memory) for index in range(profile.count))
        self.generators = tuple(CardGenerator(device) for device in self.devices)
        self.library_states: dict[tuple[type, str], Any] = {}
        self.saved_tensor_hooks = 0
        self.needs_full_path = bool(profile.refused)
        self._current = _Current()

    @property
    def current(self) -> int:
        """The index of this thread's current card."""
        return self._current.index

    @current.setter
    def current(self, index: int) -> None:
        self.check_index(index)
        self._current.index = index

    def check_index(self, index: int) -> None:
        """Raise what PyTorch raises for the index of a card that does not exist.

        Raises:
            torch.AcceleratorError: on CUDA and ROCm (before PyTorch 2.8 a RuntimeError).
            RuntimeError: on other types of cards.
        """
        if 0 <= index < len(self.devices):
            return
        if self.device_type == "cuda":
            engine = "HIP" if self.profile.kind == "rocm" else "CUDA"
            raise _AcceleratorError(f"{engine} error: invalid device ordinal")
        raise RuntimeError(
            f"device_index >= 0 && device_index < device_count INTERNAL ASSERT FAILED: the device index is out of "
            f"range. It must be in [0, {len(self.devices)}), but got {index}."
        )

    def resolve(self, device: object) -> torch.device:
        """The device with its index, which is the current card's if none is given; other device types unchanged.

        Raises:
            RuntimeError: there is no such card.
        """
        if not isinstance(device, torch.device):
            device = torch.device(self.device_type, device) if isinstance(device, int) else torch.device(str(device))
        if device.type != self.device_type:
            return device
        index = self.current if device.index is None else device.index  # type: ignore[redundant-expr]
        self.check_index(index)
        return self.devices[index]
