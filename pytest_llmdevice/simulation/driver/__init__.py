"""A driver below PyTorch's own Python code: the C functions that its runtime modules call, for simulated cards."""

from __future__ import annotations

from typing import Any, Final

import torch

from pytest_llmdevice.simulation import generators
from pytest_llmdevice.simulation.driver import accelerator, cuda, mps, runtime, streams, xpu
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.tags import Tags

_RUNTIMES: Final[dict[str, Any]] = {"cuda": cuda, "xpu": xpu, "mps": mps}


def install(machine: Machine, tags: Tags, patches: Patches) -> None:
    """Make PyTorch's runtime modules report the cards of `machine`; `patches.undo()` takes it back."""
    remembering = (torch, torch._utils, torch.cuda, torch.xpu, torch.mps, torch.backends.mps, torch.accelerator)
    runtime.forget_answers(patches, remembering)
    card_streams = streams.install(machine, patches)
    generators.install(machine, patches)
    _RUNTIMES[machine.device_type].install(machine, card_streams, patches)
    accelerator.install(machine, card_streams, patches)
