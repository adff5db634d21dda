"""What code under test changed of a model that it was given: where its tensors are, their dtypes, its mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.model.device_map import hooks_of, with_index
from pytest_llmdevice.model.weights import has_packed_class
from pytest_llmdevice.monitoring.change import Change

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def unchanged_model(model: nn.Module) -> Iterator[list[Change]]:
    """Say on leaving what became of `model`: the list is filled then. Modes are put back, numbers cannot be."""
    changes: list[Change] = []
    before, modes = _tensors(model), [(module, module.training) for module in model.modules()]
    sums = _sums(model)
    # `cpu_offload_with_hook` of accelerate leaves what it ran on the card until the next part runs.
    carried = any(type(hook).__name__ == "CpuOffload" for module, _ in modes for hook in hooks_of(module))
    mode = model.training
    try:
        yield changes
    finally:
        after = _tensors(model)
        for name, (dtype, device) in before.items():
            now_dtype, now_device = after.get(name, (dtype, device))
            if now_dtype != dtype:
                changes.append(Change("model", name, dtype, now_dtype))
            if now_device != device and not carried:
                changes.append(Change("model", name, device, now_device))
        if not changes:
            now = _sums(model)
            others = (name for name in sums if now.get(name) != sums[name])
            changes += [Change("model", name, "as it was loaded", "of other values") for name in others]
        if model.training != mode:
            words = {True: "training mode", False: "eval mode"}
            changes.append(Change("training", "the model", words[mode], words[model.training]))
        for module, training in modes:
            module.training = training


LARGEST: Final = 2**28
"""Numbers of a model whose values are looked at: adding up more would take longer than generating."""


def _sums(model: nn.Module) -> dict[str, tuple[float, float]]:
    """Two sums over each dense parameter, which rounding or adding to it changes."""
    import torch

    found = {}
    if sum(parameter.numel() for parameter in model.parameters()) > LARGEST:
        return {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.is_floating_point() and not parameter.is_meta and not has_packed_class(parameter):
                values = parameter.float()
                found[name] = float(values.sum()), float(values.abs().sum())
    return found


def _tensors(model: nn.Module) -> dict[str, tuple[str, str]]:
    """(dtype, device) of each parameter and buffer, in words. Packed numbers may be laid out anew when they are run."""
    found = {}
    for named in (model.named_parameters(), model.named_buffers()):
        for name, tensor in named:
            dtype = str(tensor.dtype).removeprefix("torch.") if tensor.is_floating_point() else "packed"
            if has_packed_class(tensor):
                dtype = "packed"
            found[name] = dtype, with_index(tensor.device)
    return found
