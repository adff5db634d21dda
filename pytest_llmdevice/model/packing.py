"""Finds weights that are kept in fewer bits than their numbers have, whoever packed them and whatever it is called.

Nothing here knows a library: a weight is packed where its tensor is made of integers or floats of a byte, has fewer
elements than the architecture's, or is not there, while its module holds as many bits under other names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.matrix.vocabulary import dtype_name
from pytest_llmdevice.model.doors import decides, dtype_of, few_bits, parts_of, storage_dtype
from pytest_llmdevice.model.weights import is_packed

if TYPE_CHECKING:
    import torch
    from torch import nn

LEAST: Final = 64
"""Numbers that a packed weight has at least."""

BESIDE: Final = 4
"""Bits for each element, from which integers beside a dense weight are taken for its packed form."""


@dataclass(frozen=True, slots=True)
class Packing:
    """How a weight is kept.

    Attributes:
        layer: the name of its module's class.
        dtype: that of its packed numbers, without `torch.`.
        tensor: the name of the class of the tensor that holds them, where that decides itself what is done with it.
        name: under which attribute of the module they are.
    """

    layer: str
    dtype: str
    tensor: str
    name: str

    def __str__(self) -> str:
        held = f"{self.tensor} of {self.dtype}" if self.tensor else self.dtype
        return f"{self.layer} with {held}"


def packing(module: nn.Module, key: str, elements: int) -> Packing | None:
    """How the weight `key` of `module`, which has `elements` in the architecture, is packed; None if it is dense.

    None too where neither the weight is there, nor anything that could be it.
    """
    import torch

    tensor = weight_of(module, key)
    if tensor is not None and _is_in_few_bits(tensor):
        return _packing(module, tensor, key)
    if tensor is not None and 0 < tensor.numel() < elements and not decides(tensor):
        return _packing(module, tensor, key)
    least = elements if tensor is None else BESIDE * elements
    for name, other in _held(module):
        if few_bits(storage_dtype(other)) and other is not tensor:
            bits = sum(part.numel() * dtype_of(part).itemsize * 8 for part in (parts_of(other) or {"": other}).values())
            if bits >= least and not (isinstance(other, torch.nn.Parameter) and other.requires_grad):
                return _packing(module, other, name)
    return None


def holds_packed(model: nn.Module) -> bool:
    """Whether any tensor in `model` looks like packed weights: integers, but of no position, or floats of a byte."""
    return any(few_bits(storage_dtype(tensor)) and _is_many_numbers(tensor) for _, tensor in _held(model))


def _is_many_numbers(tensor: torch.Tensor) -> bool:
    size = storage_dtype(tensor).itemsize
    # Positions and tables of tokens are in rows, and in 32 or 64 bits; packed weights have two dimensions, or a byte.
    return tensor.numel() >= LEAST and (size == 1 or (size < 8 and tensor.ndim > 1 and min(tensor.shape) > 1))


def weight_of(module: Any, key: str) -> torch.Tensor | None:
    """The tensor `key` of `module`; where that is a method, as in PyTorch's own quantized layers, what it returns."""
    import torch

    try:
        found = getattr(module, key, None)
        if callable(found) and not isinstance(found, torch.Tensor):
            found = found()
    except Exception:  # noqa: BLE001  # whatever a property raises, there is no tensor
        return None
    return found if isinstance(found, torch.Tensor) else None


def _is_in_few_bits(tensor: torch.Tensor) -> bool:
    if is_packed(tensor):
        return True
    return few_bits(storage_dtype(tensor))


def _packing(module: nn.Module, tensor: torch.Tensor, name: str) -> Packing:
    own = type(tensor).__name__ if decides(tensor) else ""
    return Packing(type(module).__name__, dtype_name(storage_dtype(tensor)), own, name)


def _held(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor that `module` and what is in it hold: parameters, buffers and plain attributes."""
    import torch

    for path, inner in module.named_modules():
        start = f"{path}." if path else ""
        for key, tensor in (*inner.named_parameters(recurse=False), *inner.named_buffers(recurse=False)):
            yield f"{start}{key}", tensor
        for key, value in vars(inner).items():
            if isinstance(value, torch.Tensor):
                yield f"{start}{key}", value
