"""Decides on which device an aten operation runs when its operands are on several, or raises PyTorch's error.

The rules and error texts are those of PyTorch 2.13: the checks that its code generator puts around every CUDA kernel
(torchgen/dest/register_dispatch_key.py, c10/core/impl), those of TensorIterator.cpp, and those in the code of single
operations (TensorAdvancedIndexing.cpp, Convolution.cpp, transformers/sdp_utils_cpp.h).
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
_real_device: Any = vars(torch._C.TensorBase)["device"].__get__


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor argument of an aten operation.

    Attributes:
        name: its name in the operation's schema.
        tensor: the CPU tensor.
        device: its device, simulated or real.
        written: whether the operation writes into it.
    """

    name: str
    tensor: torch.Tensor
    device: torch.device
    written: bool = False

    @property
    def is_cpu_scalar(self) -> bool:
        """Whether it is a CPU tensor without dimensions, which kernels of a card accept as a number."""
        return self.device == CPU and self.tensor.dim() == 0 and not self.written


Rule = Callable[[Any, Sequence[Operand], tuple[Any, ...]], torch.device]


def operands_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tags: Tags) -> list[Operand]:
    """The tensor arguments of a call to an aten operation in the order in which PyTorch checks them: outputs first."""
    schema = func._schema.arguments
    inputs: list[Operand] = []
    outputs: list[Operand] = []
    for position, argument in enumerate(schema):
        value = args[position] if position < len(args) else kwargs.get(argument.name)
        if value is None:
            continue
        into = outputs if argument.is_out else inputs
        alias = argument.alias_info
        written = alias is not None and alias.is_write
        for part in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(part, torch.Tensor):
                into.append(Operand(argument.name, part, tags.of(part) or _real_device(part), written))
    return outputs + inputs


def result_device(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    """The device of an operation's result.

    Args:
        func: the aten operation.
        tensors: its operands; at least one.
        args: its positional arguments, for the rules that depend on a number among them.

    Raises:
        RuntimeError: PyTorch's, for operands on devices that the operation does not accept.
    """
    first = tensors[0].device
    name = func._schema.name.removeprefix("aten::")
    rule = _RULES.get(name)
    if rule is not None:
        return rule(func, tensors, args)
    if all(operand.device == first for operand in tensors):
        return first
    if name in ITERATOR:
        return iterator_rule(func, tensors)
    if "::" in name:
        return _custom_operation_rule(func, tensors)
    return wrapper_rule(func, tensors)


def composite_key(func: Any, tensors: Sequence[Operand]) -> Any:
    """The dispatch key of the kernel that composes an operation of others, for tensors on different devices.

    None for an operation with a kernel of its own, and for tensors that are all on one device.
    """
    name = func._schema.name.removeprefix("aten::")
    if name in _RULES or name in ITERATOR or all(operand.device == tensors[0].device for operand in tensors):
        return None
    if func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CPU):
        return None
    return next((key for key in _COMPOSED if func.has_kernel_for_dispatch_key(key)), None)


def iterator_rule(func: Any, tensors: Sequence[Operand], *, scalars: int = 1) -> torch.device:
    """TensorIterator's rule: operands share one card; `scalars` of them may be CPU tensors without dimensions."""
    common = next((operand.device for operand in tensors if operand.device != CPU), CPU)
    left = scalars
    for operand in tensors:
        if common != CPU and scalars and operand.is_cpu_scalar:
            if not left:
                raise RuntimeError("Trying to pass too many CPU scalars to non-CPU kernel!")
            left -= 1
        elif operand.device != common:
            if "index" not in func._schema.name:
                # PyTorch checks shapes first; this raises when they do not match.
                torch.broadcast_tensors(*(other.tensor for other in tensors))  # type: ignore[no-untyped-call]
            raise _two_devices(common, operand.device)
    return common


def _two_devices(common: torch.device, other: torch.device) -> RuntimeError:
    return RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, {common} and {other}!"
    )


def wrapper_rule(func: Any, tensors: Sequence[Operand]) -> torch.device:
    """The generated wrapper's rule: all operands on the first one's device, also those without dimensions."""
    common = tensors[0].device
    for operand in tensors:
        if operand.device != common:
            raise _wrapper_error(func, operand, common)
    return common


def _custom_operation_rule(func: Any, tensors: Sequence[Operand]) -> torch.device:
    """The rule for another library's operation: its kernels read only the memory of their own card."""
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
        # Metal kernels have no generated check; a CPU tensor has no Metal buffer.
        return RuntimeError("Placeholder storage has not been allocated on MPS device!")
    return RuntimeError(
        f"Expected all tensors to be on the same device, but got {operand.name} is on {operand.device}, different "
        f"from other tensors on {common} (when checking argument in method {wrapper_name(func, kind)})"
    )


def wrapper_name(func: Any, kind: str = "cuda") -> str:
    """The name of the generated wrapper of an operation: `wrapper_CUDA_addmm`, `wrapper_CUDA__index_select`."""
    name, overload = func._schema.name.rpartition("::")[2], func._schema.overload_name
    out = "_out" if any(argument.is_out for argument in func._schema.arguments) else ""
    if name.removesuffix("_") in STRUCTURED or name in STRUCTURED:
        return f"wrapper_{kind.upper()}_{name}{out}" + (f"_{overload}" if overload else "")
    return f"wrapper_{kind.upper()}_{overload}_{name}{out}"


def _first_operand_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    """The result is on the first operand's device; the others may be on any."""
    return tensors[0].device


def _index_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    device = tensors[0].device
    for operand in tensors[1:]:
        if operand.device not in (CPU, device):
            raise RuntimeError(
                f"indices should be either on cpu or on the same device as the indexed tensor ({device})"
            )
    return device


def _index_put_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
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


def _masked_fill_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    device, mask = tensors[0].device, tensors[1]
    if mask.device != device:
        raise RuntimeError(
            f"expected self and mask to be on the same device, but got mask on {mask.device} and self on {device}"
        )
    if len(tensors) > 2 and device == CPU and tensors[2].device != CPU:
        raise RuntimeError("masked_fill_: Expected inputs to be on same device")
    return device


def _where_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    device = next((operand.device for operand in tensors if operand.device != CPU), CPU)
    for operand in tensors:
        # Tensors without dimensions are moved from any device.
        if operand.device != device and (operand.tensor.dim() or operand.written):
            raise _two_devices(device, operand.device)
    return device


def _attention_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    devices = {operand.name: operand.device for operand in tensors}
    query, key, value = devices["query"], devices["key"], devices["value"]
    if not query == key == value:
        raise RuntimeError(
            f"Expected query, key, and value to have the same device type, but got query.device: {query} key.device: "
            f"{key} and value.device: {value} instead."
        )
    return wrapper_rule(func, tensors)


def _convolution_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    values, weight = tensors[0], tensors[1]
    for name, operand in (("weight", weight), *((("bias", tensors[2]),) if len(tensors) > 2 else ())):
        if _type(operand) != _type(values):
            ending = ""
            if values.device == CPU and name == "weight":
                ending = " or input should be a MKLDNN tensor and weight is a dense tensor"
            raise RuntimeError(
                f"Input type ({_type(values)}) and {name} type ({_type(operand)}) should be the same{ending}"
            )
    if weight.device != values.device:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but got weight is on {weight.device}, different from "
            f"other tensors on {values.device} (when checking argument in method wrapper_CUDA__cudnn_convolution)"
        )
    return values.device


def _type(operand: Operand) -> str:
    name: str = torch.Tensor.type(operand.tensor)
    return name if operand.device == CPU else name.replace("torch.", f"torch.{operand.device.type}.", 1)


def _mv_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    matrix, vector = tensors[0], tensors[1]
    if matrix.device != vector.device:
        raise _wrapper_error(torch.ops.aten.addmv_.default, Operand("mat", matrix.tensor, matrix.device), vector.device)
    return vector.device


def result_devices(func: Any, tensors: Sequence[Operand]) -> list[torch.device] | None:
    """The device of each result of an operation on lists of tensors (`_foreach_...`); None for any other operation.

    The operation treats the lists position by position, so each position follows TensorIterator's rule by itself.

    Raises:
        RuntimeError: PyTorch's, for tensors of one position that are on different devices.
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
        iterator_rule(func, [operand, *(other[min(position, len(other) - 1)] for other in others)])
        for position, operand in enumerate(first)
    ]


_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("copy_", "_copy_from", "set_", "fill_", "_to_copy", "new_zeros", "new_empty"), _first_operand_rule
    ),
    **dict.fromkeys(("resize_as_", "expand_as", "view_as", "zeros_like", "is_same_size"), _first_operand_rule),
    # They copy the first operand, and then the second into a part of that copy.
    **dict.fromkeys(("slice_scatter", "select_scatter", "diagonal_scatter", "as_strided_scatter"), _first_operand_rule),
    **dict.fromkeys(("index", "_unsafe_index"), _index_rule),
    **dict.fromkeys(("index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"), _index_put_rule),
    **dict.fromkeys(("masked_fill", "masked_fill_"), _masked_fill_rule),
    "where": _where_rule,
    "_scaled_dot_product_attention_math": _attention_rule,
    "_scaled_dot_product_flash_attention_for_cpu": _attention_rule,
    "_scaled_dot_product_fused_attention_overrideable": _attention_rule,
    **dict.fromkeys(
        ("convolution", "_convolution", "mkldnn_convolution", "convolution_overrideable"), _convolution_rule
    ),
    "mv": _mv_rule,
}
