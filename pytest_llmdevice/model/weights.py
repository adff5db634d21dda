"""Reads the values of a loaded model's tensors: offloaded ones through their hook, packed ones dequantized.

The functions change neither the model nor its hooks nor the packed weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_llmdevice.matrix.axes import Quantization
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.model.device_map import offload_hook
from pytest_llmdevice.model.doors import class_names, decides, few_bits, plain_values, storage_dtype

if TYPE_CHECKING:
    import torch
    from torch import nn


def has_packed_class(tensor: torch.Tensor) -> bool:
    """Whether `tensor` is of a class that holds quantized weights, be it quantized yet or not."""
    return bool(_entries(tensor)) or is_packed(tensor)


def _entries(tensor: torch.Tensor | None) -> list[Quantization]:
    names = class_names(tensor)
    return [entry for entry in current().of(Quantization).values() if entry.parameter_class in names]


def offloaded_value(model: nn.Module, name: str) -> torch.Tensor | None:
    """The value that accelerate's hook loads for the offloaded tensor `name`; None if no hook has one."""
    weights = getattr(offload_hook(model, name), "weights_map", None)
    key = name.rpartition(".")[2]
    try:
        tensor: torch.Tensor = weights[key]  # type: ignore[index]
    except (KeyError, TypeError):
        return None
    return tensor


def is_packed(tensor: torch.Tensor) -> bool:
    """Whether `tensor` is a weight that was quantized, and not only of a class for such.

    It is of a class that a quantization is known by, or of any one that decides itself what is done with it and holds
    integers, or floats of a byte.
    """
    for entry in _entries(tensor):
        said = entry.packed(tensor)
        if said is not None:
            return said
    return decides(tensor) and few_bits(storage_dtype(tensor))


def dequantized(module: nn.Module, weight: torch.Tensor | None) -> torch.Tensor | None:
    """The values of the packed `weight` of `module`, on the CPU; None where nothing says them, or their scale is gone.

    The quantization whose class the tensor or the module is of is asked first, then the tensor, then the module.
    """
    entries = _entries(weight) or [
        entry for entry in current().of(Quantization).values() if entry.layer_class == type(module).__name__
    ]
    for entry in entries:
        values = entry.dequantize(module, weight)
        if values is not None:
            return _numbers(values)
    if any(entry.parameter_class and entry.packed(weight) is not None for entry in entries):
        # Its own way needs what is gone.
        return None
    if weight is not None and (decides(weight) or weight.is_quantized):
        return _numbers(weight.dequantize() if weight.is_quantized else plain_values(weight))
    own: Any = getattr(module, "dequantize", None)
    try:
        return _numbers(own()) if callable(own) else None
    except Exception:  # noqa: BLE001  # whatever it raises, it gives no numbers
        return None


def _numbers(values: Any) -> torch.Tensor | None:
    import torch

    return values.detach().cpu() if isinstance(values, torch.Tensor) else None
