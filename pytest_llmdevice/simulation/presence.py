"""Refuses a simulation on a machine that has real devices of the simulated type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch

from pytest_llmdevice.errors import SimulationError
from pytest_llmdevice.simulation import visibility
from pytest_llmdevice.simulation.profiles import Profile

BUILT_FOR_CARDS: Final = torch.backends.cuda.is_built()  # type: ignore[no-untyped-call]
"""Whether this PyTorch could see real NVIDIA or AMD cards. Asked at import, which is before any simulation."""


def hides_real_cards(profile: Profile, environment: Mapping[str, str]) -> bool:
    """Whether a variable in `environment`, which was there before, hides real cards, and not the simulated ones.

    With a PyTorch that has no driver for cards, there are none to hide, and the variable is about the simulated ones.
    """
    blank = any(value.strip() in visibility.BLANK for value in environment.values())
    return blank and BUILT_FOR_CARDS and profile.device_type == "cuda"


def refuse_real_devices(profile: Profile) -> None:
    """Raise if the machine has real devices of the type that `profile` simulates.

    Raises:
        SimulationError: it has some.
    """
    count = _count(profile.device_type)
    if count:
        devices = "device is" if count == 1 else "devices are"
        raise SimulationError(
            f"cannot simulate {profile}: {count} real {profile.device_type} {devices} here, and real cards are never "
            f"shadowed; run on them, or hide them before Python starts (CUDA_VISIBLE_DEVICES='' for CUDA)"
        )


def _count(device_type: str) -> int:
    if device_type == "mps":
        return int(torch.backends.mps.is_available())
    module = getattr(torch, device_type)
    return int(module.device_count()) if module.is_available() else 0
