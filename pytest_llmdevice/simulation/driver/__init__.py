"""Replaces the C functions that PyTorch's runtime modules (`torch.cuda`, `torch.xpu`, `torch.mps`) call."""

from __future__ import annotations

from typing import Any, Final

import torch

from pytest_llmdevice.simulation.driver import accelerator, collectives, cuda, generators, mps, runtime, streams, xpu
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.tags import Tags

_RUNTIMES: Final[dict[str, Any]] = {"cuda": cuda, "xpu": xpu, "mps": mps}


def install(machine: Machine, tags: Tags, patches: Patches) -> None:
    """Make PyTorch's runtime modules report the cards of `machine`; `patches.undo()` reverts it."""
    caching = (torch, torch._utils, torch.cuda, torch.xpu, torch.mps, torch.backends.mps, torch.accelerator)
    runtime.clear_caches(patches, caching)
    card_streams = streams.install(machine, patches)
    generators.install(machine, patches)
    _RUNTIMES[machine.device_type].install(machine, card_streams, patches)
    accelerator.install(machine, card_streams, patches)
    collectives.install(machine, tags, patches)
