"""Makes the text of a tensor on a simulated card name its device, marked as simulated."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch

from pytest_llmdevice.simulation.patches import Patches


class _Current(threading.local):
    device: torch.device | None = None


_current = _Current()


def repr_with_device(write: Callable[[], str], device: torch.device) -> str:
    """Call `write`, which writes one tensor, with its device: `tensor([1.], device='cuda:0 (simulated)')`."""
    before, _current.device = _current.device, device
    try:
        return write()
    finally:
        _current.device = before


def install(patches: Patches) -> None:
    """Make PyTorch write the device that `repr_with_device` has set, in the place of a real one."""
    module: Any = torch._tensor_str
    add = module._add_suffixes

    def add_suffixes(text: str, suffixes: list[str], *rest: Any, **options: Any) -> str:
        if _current.device is not None:
            suffixes = [f"device='{_current.device} (simulated)'", *suffixes]
        written: str = add(text, suffixes, *rest, **options)
        return written

    patches.set(module, "_add_suffixes", add_suffixes)
