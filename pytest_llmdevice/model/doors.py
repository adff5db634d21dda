"""Reads tensors of any class: what they hold, in which dtype and where, without asking the class for an operation.

A tensor of a class of its own (torchao's, quanto's, a distributed one) decides itself what is done with it: it may
refuse a sum or a cast, have no storage, and call its dtype what it likes. Checks read such tensors through here only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch


def decides(tensor: Any) -> bool:
    """Whether the class of `tensor` decides itself what an operation does with it.

    A class of which only functions are its own, such as bitsandbytes' weights, has numbers like any other.
    """
    import torch

    own = getattr(type(tensor), "__torch_dispatch__", None)
    return issubclass(type(tensor), torch.Tensor) and own is not getattr(torch.Tensor, "__torch_dispatch__", None)


def class_names(value: object) -> frozenset[str]:
    """The names of the class of `value` and of all that it derives from."""
    return frozenset(kind.__name__ for kind in type(value).__mro__)


def dtype_of(tensor: torch.Tensor) -> torch.dtype:
    """The dtype that PyTorch has for `tensor`, whatever an attribute of its class says."""
    found: torch.dtype = _own("dtype", tensor)
    return found


def device_of(tensor: torch.Tensor) -> torch.device:
    """Where PyTorch has `tensor`; of one that is made of others, where the class has put it."""
    found: torch.device = _own("device", tensor) if decides(tensor) else tensor.device
    return found


def _own(attribute: str, tensor: Any) -> Any:
    import torch

    if not issubclass(type(tensor), torch.Tensor):
        # A stand-in, such as what a tracer keeps of a tensor.
        return getattr(tensor, attribute)
    getter: Any = getattr(torch.Tensor, attribute)
    with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001  # PyTorch has no public name for it
        return getter.__get__(tensor)


def plain_values(tensor: torch.Tensor) -> torch.Tensor | None:
    """The numbers of `tensor` as a plain tensor, without a graph; None where its class gives none.

    Packed ones are unpacked by their own method, and distributed ones collected.
    """
    import torch

    if not decides(tensor):
        # Without the functions of its class, if it has any.
        with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001  # as above
            return tensor.detach()
    for way in _WAYS:
        method = getattr(tensor, way, None)
        if not callable(method) or getattr(type(tensor), way, None) is getattr(torch.Tensor, way, None):
            continue
        try:
            with torch.no_grad():
                found = method()
            if isinstance(found, torch.Tensor) and not decides(found) and found.shape == tensor.shape:
                return found.detach()
        except Exception:  # noqa: BLE001, S112  # whatever a class raises, it gives no numbers in this way
            continue
    return None


_WAYS: Final = ("dequantize", "full_tensor", "to_dense")


def parts_of(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors that one of a class of its own is made of, by attribute; none of an ordinary tensor."""
    if not decides(tensor):
        return {}
    return dict(_parts(tensor, ""))


def _parts(tensor: Any, prefix: str, depth: int = 3) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    names: list[str] = []
    try:
        names = list(tensor.__tensor_flatten__()[0])
    except Exception:  # noqa: BLE001  # it has none, or refuses: then its attributes are looked through
        names = [key for key, value in _attributes(tensor).items() if isinstance(value, torch.Tensor)]
    for name in names:
        inner = getattr(tensor, name, None)
        if not isinstance(inner, torch.Tensor) or inner is tensor:
            continue
        below = dict(_parts(inner, f"{prefix}{name}.", depth - 1)) if depth and decides(inner) else {}
        yield from below.items() if below else ((f"{prefix}{name}", inner),)


def _attributes(tensor: Any) -> Mapping[str, Any]:
    return getattr(tensor, "__dict__", {})


def few_bits(dtype: torch.dtype) -> bool:
    """Whether numbers in `dtype` are integers, or floating-point ones of a byte or less."""
    import torch

    if dtype == torch.bool or dtype.is_complex:
        return False
    return not dtype.is_floating_point or dtype.itemsize < 2


def storage_dtype(tensor: torch.Tensor) -> torch.dtype:
    """The dtype in which the most bytes of `tensor` are: of a packed one, that of its packed numbers."""
    parts = list(parts_of(tensor).values())
    if not parts:
        return dtype_of(tensor)
    packed = [part for part in parts if few_bits(dtype_of(part))]
    return dtype_of(max(packed or parts, key=lambda part: part.numel()))


def held_bytes(tensor: torch.Tensor) -> int:
    """The bytes that `tensor` holds, with all that it is made of."""
    parts = parts_of(tensor)
    if parts:
        return sum(part.numel() * dtype_of(part).itemsize for part in parts.values())
    return tensor.numel() * dtype_of(tensor).itemsize


def same_data(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two tensors are one, or share their data."""
    if left is right:
        return True
    if decides(left) or decides(right):
        mine, others = parts_of(left), parts_of(right)
        return bool(mine) and mine.keys() == others.keys() and all(same_data(mine[key], others[key]) for key in mine)
    return left.device == right.device and left.data_ptr() == right.data_ptr() and left.shape == right.shape
