"""The simulated machine: its cards, which of them is current, and the memory and random numbers of each."""

from __future__ import annotations

import threading

import torch

from pytest_llmdevice.simulation.generators import CardGenerator
from pytest_llmdevice.simulation.memory import Pool
from pytest_llmdevice.simulation.profiles import Profile

_AcceleratorError: type[RuntimeError] = getattr(torch, "AcceleratorError", RuntimeError)


class _Current(threading.local):
    """The index of the current card; each thread begins with the first, as in CUDA."""

    index = 0


class Machine:
    """What one simulation simulates, for as long as it lasts.

    Attributes:
        profile: the cards.
        device_type: PyTorch's name of their kind.
        devices: them, with their indices.
        pools: the memory of each.
        saved_tensor_hooks: how many hooks for saved tensors are set: they see tensors in the middle of a function.
        careful: whether a call may be about more than the places of its operands: autocast has been turned on, hooks
            for saved tensors have been set, or there are dtypes that the cards refuse.
        generators: the default random generator of each.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.device_type = profile.device_type
        self.devices = tuple(torch.device(name) for name in profile.devices)
        self.pools = tuple(Pool(index, self.device_type, profile.memory) for index in range(profile.count))
        self.generators = tuple(CardGenerator(device) for device in self.devices)
        self.saved_tensor_hooks = 0
        self.careful = bool(profile.refused)
        self._current = _Current()

    @property
    def current(self) -> int:
        """The index of this thread's current card."""
        return self._current.index

    @current.setter
    def current(self, index: int) -> None:
        self.check(index)
        self._current.index = index

    def check(self, index: int) -> None:
        """Raise what PyTorch raises for a card that is not there.

        Raises:
            torch.AcceleratorError: on CUDA and ROCm (before PyTorch 2.8 a RuntimeError).
            RuntimeError: on others.
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
        """The device with its index: the current card where none was given; other kinds as they are.

        Raises:
            RuntimeError: no such card.
        """
        if not isinstance(device, torch.device):
            device = torch.device(self.device_type, device) if isinstance(device, int) else torch.device(str(device))
        if device.type != self.device_type:
            return device
        index = self.current if device.index is None else device.index  # type: ignore[redundant-expr]
        self.check(index)
        return self.devices[index]
