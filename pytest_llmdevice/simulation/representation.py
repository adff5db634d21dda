"""How a tensor of a simulated card is written: as PyTorch writes it, and openly simulated."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch

from pytest_llmdevice.simulation.patches import Patches


class _Note(threading.local):
    device: torch.device | None = None


_note = _Note()


def with_device(write: Callable[[], str], device: torch.device) -> str:
    """What `write` writes of one tensor: `tensor([1.], device='cuda:0 (simulated)')`."""
    before, _note.device = _note.device, device
    try:
        return write()
    finally:
        _note.device = before


def install(patches: Patches) -> None:
    """Have PyTorch write the noted device where it writes a real one, before everything else."""
    module: Any = torch._tensor_str
    add = module._add_suffixes

    def add_suffixes(text: str, suffixes: list[str], *rest: Any, **options: Any) -> str:
        if _note.device is not None:
            suffixes = [f"device='{_note.device} (simulated)'", *suffixes]
        written: str = add(text, suffixes, *rest, **options)
        return written

    patches.set(module, "_add_suffixes", add_suffixes)
