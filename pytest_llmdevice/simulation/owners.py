"""Says which modules hold the memory of a card, for the error that is raised when it is full."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import nn

from pytest_llmdevice.simulation.memory import format_size

MOST: Final = 8
"""Modules that are named."""

_DEEP: Final = 3
"""How far tensors are looked for in what a packed weight carries, as the state of a quantization."""


def described(holder: Any, held: int) -> str:
    """What the modules of this process hold on a card, the largest first; empty where nothing is held.

    Args:
        holder: storage -> the bytes that it holds on the card, once for each storage.
        held: the bytes that all tensors hold there.
    """
    if not held:
        return ""
    sizes: Counter[str] = Counter()
    for label, tensor in _owned():
        sizes[label] += holder(tensor)
    ranked = [(label, size) for label, size in sizes.most_common() if size]
    lines = [f"  {format_size(size):>11}  {label}" for label, size in ranked[:MOST]]
    if more := ranked[MOST:]:
        lines.append(f"  {format_size(sum(size for _, size in more)):>11}  {len(more)} more modules")
    if rest := held - sum(sizes.values()):
        lines.append(f"  {format_size(rest):>11}  tensors of no module")
    return "\n".join([f"The {format_size(held)} that are held, by the module that owns them:", *lines])


def _owned() -> Iterator[tuple[str, torch.Tensor]]:
    """(the module that owns it, tensor) of each tensor of a module that is alive."""
    # By their class: a proxy's `__class__` may be anything, and asking for it may do anything.
    modules = [each for each in gc.get_objects() if issubclass(type(each), nn.Module)]
    inner = {id(child) for module in modules for child in _table(module, "_modules")}
    for root in modules:
        if id(root) in inner:
            continue
        for name, module in root.named_modules():
            label = f"{name} ({type(root).__name__})" if name else type(root).__name__
            for tensor in (*_table(module, "_parameters"), *_table(module, "_buffers")):
                yield from ((label, part) for part in _parts(tensor, _DEEP))
                if tensor.is_leaf and tensor.grad is not None:
                    yield f"gradients of {label}", tensor.grad


def _table(module: nn.Module, name: str) -> list[Any]:
    table = vars(module).get(name)
    return [value for value in table.values() if value is not None] if isinstance(table, dict) else []


def _parts(value: Any, depth: int) -> Iterator[torch.Tensor]:
    """A tensor, and those that it carries."""
    if isinstance(value, torch.Tensor):
        yield value
    if depth and not isinstance(value, nn.Module):
        for inner in list(getattr(value, "__dict__", {}).values()):
            yield from _parts(inner, depth - 1)
