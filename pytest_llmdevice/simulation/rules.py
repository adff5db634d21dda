"""Which operands may be on two devices, where the result goes, and what PyTorch says otherwise.

The rules and texts are those of PyTorch 2.13: the checks that its code generator puts around every CUDA kernel
(torchgen/dest/register_dispatch_key.py, c10/core/impl), TensorIterator.cpp, and those that single operations make
for themselves (TensorAdvancedIndexing.cpp, Convolution.cpp, transformers/sdp_utils_cpp.h).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pytest_llmdevice.simulation.operations import ITERATOR, STRUCTURED
from pytest_llmdevice.simulation.tags import Tags

CPU = torch.device("cpu")
_COMPOSED = (
    torch._C.DispatchKey.CompositeExplicitAutograd,
    torch._C.DispatchKey.CompositeImplicitAutograd,
)
_device_of: Any = vars(torch._C.TensorBase)["device"].__get__


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor argument: its name in the schema, the tensor, where it simulates to be, and whether it is written to."""

    name: str
    tensor: torch.Tensor
    device: torch.device
    written: bool = False

    @property
    def is_cpu_scalar(self) -> bool:
        """Whether it is a number on the CPU that kernels of a card take as an argument."""
        return self.device == CPU and self.tensor.dim() == 0 and not self.written


Rule = Callable[[Any, Sequence[Operand], tuple[Any, ...]], torch.device]


def operands(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tags: Tags) -> list[Operand]:
    """The tensors of a call to an aten operation in the order in which PyTorch checks them: outputs first."""
    schema = func._schema.arguments
    found: list[Operand] = []
    outputs: list[Operand] = []
    for position, argument in enumerate(schema):
        value = args[position] if position < len(args) else kwargs.get(argument.name)
        if value is None:
            continue
        into = outputs if argument.is_out else found
        alias = argument.alias_info
        written = alias is not None and alias.is_write
        for part in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(part, torch.Tensor):
                into.append(Operand(argument.name, part, tags.of(part) or _device_of(part), written))
    return outputs + found


def place(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    """The device of an operation's result.

    Args:
        func: the aten operation.
        tensors: its operands; at least one.
        args: its positional arguments, for the rules that depend on a number among them.

    Raises:
        RuntimeError: PyTorch's, for operands that may not be where they are.
    """
    first = tensors[0].device
    name = func._schema.name.removeprefix("aten::")
    own = _OWN.get(name)
    if own is not None:
        return own(func, tensors, args)
    if all(operand.device == first for operand in tensors):
        return first
    if name in ITERATOR:
        return iterator(func, tensors)
    if "::" in name:
        return _custom(func, tensors)
    return wrapper(func, tensors)


def composition(func: Any, tensors: Sequence[Operand]) -> Any:
    """The dispatch key of the kernel that composes an operation of others, for tensors in different places.

    None where the operation has a kernel of its own, or where nothing can be wrong.
    """
    name = func._schema.name.removeprefix("aten::")
    if name in _OWN or name in ITERATOR or all(operand.device == tensors[0].device for operand in tensors):
        return None
    if func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CPU):
        return None
    return next((key for key in _COMPOSED if func.has_kernel_for_dispatch_key(key)), None)


def iterator(func: Any, tensors: Sequence[Operand], *, scalars: int = 1) -> torch.device:
    """TensorIterator's rule: the card comes first, and as many as `scalars` numbers may stay on the CPU beside it."""
    common = next((operand.device for operand in tensors if operand.device != CPU), CPU)
    left = scalars
    for operand in tensors:
        if common != CPU and scalars and operand.is_cpu_scalar:
            if not left:
                raise RuntimeError("Trying to pass too many CPU scalars to non-CPU kernel!")
            left -= 1
        elif operand.device != common:
            if "index" not in func._schema.name:
                # Shapes come first; this raises when they do not fit.
                torch.broadcast_tensors(*(each.tensor for each in tensors))  # type: ignore[no-untyped-call]
            raise _two_devices(common, operand.device)
    return common


def _two_devices(common: torch.device, other: torch.device) -> RuntimeError:
    return RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, {common} and {other}!"
    )


def wrapper(func: Any, tensors: Sequence[Operand]) -> torch.device:
    """The generated wrapper's rule: all where the first is, numbers on the CPU included."""
    common = tensors[0].device
    for operand in tensors:
        if operand.device != common:
            raise _wrapper_error(func, operand, common)
    return common


def _custom(func: Any, tensors: Sequence[Operand]) -> torch.device:
    """An operation of another library: its kernels for a card read no memory but that card's."""
    common = next(operand.device for operand in tensors if operand.device != CPU)
    for operand in tensors:
        if operand.device != common and operand.tensor.numel():
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {common} and "
                f"{operand.device}! (argument {operand.name} of {func._schema.name})"
            )
    return common


def _wrapper_error(func: Any, operand: Operand, common: torch.device) -> RuntimeError:
    kind = next(device.type for device in (common, operand.device) if device != CPU)
    if kind == "mps":
        # Metal kernels have no generated check; they find no buffer behind a tensor of the CPU.
        return RuntimeError("Placeholder storage has not been allocated on MPS device!")
    return RuntimeError(
        f"Expected all tensors to be on the same device, but got {operand.name} is on {operand.device}, different "
        f"from other tensors on {common} (when checking argument in method {method(func, kind)})"
    )


def method(func: Any, kind: str = "cuda") -> str:
    """The name of the generated wrapper of an operation: `wrapper_CUDA_addmm`, `wrapper_CUDA__index_select`."""
    name, overload = func._schema.name.rpartition("::")[2], func._schema.overload_name
    out = "_out" if any(argument.is_out for argument in func._schema.arguments) else ""
    if name.removesuffix("_") in STRUCTURED or name in STRUCTURED:
        return f"wrapper_{kind.upper()}_{name}{out}" + (f"_{overload}" if overload else "")
    return f"wrapper_{kind.upper()}_{overload}_{name}{out}"


def _anywhere(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    """The first operand says where; the others may be anywhere."""
    return tensors[0].device


def _index(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    device = tensors[0].device
    for operand in tensors[1:]:
        if operand.device not in (CPU, device):
            raise RuntimeError(
                f"indices should be either on cpu or on the same device as the indexed tensor ({device})"
            )
    return device


def _index_put(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    device = tensors[0].device
    accumulate = len(args) > 3 and args[3]
    for operand in tensors:
        if operand.name == "values" and operand.device != device and operand.tensor.dim():
            if accumulate and device != CPU:
                raise RuntimeError(f"expected device {device} but got device {operand.device} for value tensor")
            common = device if device != CPU else operand.device
            other = operand.device if device != CPU else device
            raise _two_devices(common, other)
    return device


def _masked_fill(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    device, mask = tensors[0].device, tensors[1]
    if mask.device != device:
        raise RuntimeError(
            f"expected self and mask to be on the same device, but got mask on {mask.device} and self on {device}"
        )
    if len(tensors) > 2 and device == CPU and tensors[2].device != CPU:
        raise RuntimeError("masked_fill_: Expected inputs to be on same device")
    return device


def _where(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    device = next((operand.device for operand in tensors if operand.device != CPU), CPU)
    for operand in tensors:
        # Numbers are moved, from whatever device.
        if operand.device != device and (operand.tensor.dim() or operand.written):
            raise _two_devices(device, operand.device)
    return device


def _attention(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    where = {operand.name: operand.device for operand in tensors}
    query, key, value = where["query"], where["key"], where["value"]
    if not query == key == value:
        raise RuntimeError(
            f"Expected query, key, and value to have the same device type, but got query.device: {query} key.device: "
            f"{key} and value.device: {value} instead."
        )
    return wrapper(func, tensors)


def _convolution(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    given, weight = tensors[0], tensors[1]
    for name, operand in (("weight", weight), *((("bias", tensors[2]),) if len(tensors) > 2 else ())):
        if _type(operand) != _type(given):
            ending = ""
            if given.device == CPU and name == "weight":
                ending = " or input should be a MKLDNN tensor and weight is a dense tensor"
            raise RuntimeError(
                f"Input type ({_type(given)}) and {name} type ({_type(operand)}) should be the same{ending}"
            )
    if weight.device != given.device:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but got weight is on {weight.device}, different from "
            f"other tensors on {given.device} (when checking argument in method wrapper_CUDA__cudnn_convolution)"
        )
    return given.device


def _type(operand: Operand) -> str:
    name: str = torch.Tensor.type(operand.tensor)
    return name if operand.device == CPU else name.replace("torch.", f"torch.{operand.device.type}.", 1)


def _mv(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    matrix, vector = tensors[0], tensors[1]
    if matrix.device != vector.device:
        raise _wrapper_error(torch.ops.aten.addmv_.default, Operand("mat", matrix.tensor, matrix.device), vector.device)
    return vector.device


def places(func: Any, tensors: Sequence[Operand]) -> list[torch.device] | None:
    """For an operation on lists of tensors, the device of each result: pair by pair, as on each card by itself.

    None for any other operation.

    Raises:
        RuntimeError: the tensors of one pair are on different devices.
    """
    if not func._schema.name.startswith("aten::_foreach_"):
        return None
    lists: dict[str, list[Operand]] = {}
    for operand in tensors:
        lists.setdefault(operand.name, []).append(operand)
    first, *others = lists.values()
    if "_foreach_copy" in func._schema.name:
        return [operand.device for operand in first]
    return [
        iterator(func, [operand, *(other[min(position, len(other) - 1)] for other in others)])
        for position, operand in enumerate(first)
    ]


_OWN: dict[str, Rule] = {
    **dict.fromkeys(("copy_", "_copy_from", "set_", "fill_", "_to_copy", "new_zeros", "new_empty"), _anywhere),
    **dict.fromkeys(("resize_as_", "expand_as", "view_as", "zeros_like", "is_same_size"), _anywhere),
    # A copy of the first, into a part of which the second is copied.
    **dict.fromkeys(("slice_scatter", "select_scatter", "diagonal_scatter", "as_strided_scatter"), _anywhere),
    **dict.fromkeys(("index", "_unsafe_index"), _index),
    **dict.fromkeys(("index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"), _index_put),
    **dict.fromkeys(("masked_fill", "masked_fill_"), _masked_fill),
    "where": _where,
    "_scaled_dot_product_attention_math": _attention,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_fused_attention_overrideable": _attention,
    **dict.fromkeys(("convolution", "_convolution", "mkldnn_convolution", "convolution_overrideable"), _convolution),
    "mv": _mv,
}
