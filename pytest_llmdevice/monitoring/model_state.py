"""Detects what the code under test changed in a model: its tensors' devices, dtypes and values, and its mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.matrix.vocabulary import dtype_name
from pytest_llmdevice.model.device_map import hooks_of, with_index
from pytest_llmdevice.model.doors import device_of, dtype_of, plain_values
from pytest_llmdevice.model.weights import has_packed_class
from pytest_llmdevice.monitoring.change import Change
from pytest_llmdevice.monitoring.class_methods import is_of_library
from pytest_llmdevice.text import plural

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def unchanged_model(model: nn.Module) -> Iterator[list[Change]]:
    """Compare `model` before and after the context; the yielded list is filled on leaving.

    Training and eval modes are restored. Devices, dtypes and values are only reported.
    """
    changes: list[Change] = []
    before, modes = _tensors(model), [(module, module.training) for module in model.modules()]
    sums = _sums(model)
    # `cpu_offload_with_hook` of accelerate leaves a module on the card until the next module runs.
    offloaded = any(type(hook).__name__ == "CpuOffload" for module, _ in modes for hook in hooks_of(module))
    mode, hooks = model.training, _hooks(model)
    try:
        yield changes
    finally:
        after = _tensors(model)
        for name, (dtype, device) in before.items():
            now_dtype, now_device = after.get(name, (dtype, device))
            if now_dtype != dtype:
                changes.append(Change("model", name, dtype, now_dtype))
            if now_device != device and not offloaded:
                changes.append(Change("model", name, device, now_device))
        if not changes:
            now = _sums(model)
            changed = (name for name in sums if now.get(name) != sums[name])
            changes += [Change("model", name, "as it was loaded", "of other values") for name in changed]
        now_hooks = _hooks(model)
        for name, count in hooks.items():
            if now_hooks.get(name, 0) > count:
                changes.append(Change("hooks", name or "the model", _counted(count), _counted(now_hooks[name])))
                break
        if model.training != mode:
            words = {True: "training mode", False: "eval mode"}
            changes.append(Change("training", "the model", words[mode], words[model.training]))
        for module, training in modes:
            module.training = training


def _hooks(model: nn.Module) -> dict[str, int]:
    """How many hooks each module has that run with its forward pass or its gradients, by name.

    Not those of the libraries: transformers leaves its own where hidden states were asked for, once for each module.
    """
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        name: sum(not is_of_library(hook) for kind in kinds for hook in (vars(module).get(kind) or {}).values())
        for name, module in model.named_modules()
    }


def _counted(count: int) -> str:
    return plural(count, "hook") if count else "no hook"


MOST_NUMBERS: Final = 2**28
"""Up to this number of parameter elements, values are compared: summing more would take longer than generating."""


def _sums(model: nn.Module) -> dict[str, tuple[float, float, int]]:
    """Of each dense parameter two sums over its finite values and their number, which change with its values."""
    import torch

    sums = {}
    if sum(parameter.numel() for parameter in model.parameters()) > MOST_NUMBERS:
        return {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if dtype_of(parameter).is_floating_point and not parameter.is_meta and not has_packed_class(parameter):
                plain = plain_values(parameter)
                if plain is None:
                    continue
                values = plain.float()
                # No nan is equal to another one: a weight that has one would always be another than before.
                finite = values.isfinite()
                values = values.where(finite, 0.0)
                sums[name] = float(values.sum()), float(values.abs().sum()), int(finite.sum())
    return sums


def _tensors(model: nn.Module) -> dict[str, tuple[str, str]]:
    """(dtype, device) of each parameter and buffer, in words; any dtype of packed values, which a run may repack."""
    tensors = {}
    for named in (model.named_parameters(), model.named_buffers()):
        for name, tensor in named:
            dtype = dtype_name(dtype_of(tensor)) if dtype_of(tensor).is_floating_point else "packed"
            if has_packed_class(tensor):
                dtype = "packed"
            tensors[name] = dtype, with_index(device_of(tensor))
    return tensors
