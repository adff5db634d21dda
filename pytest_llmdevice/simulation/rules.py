"""The two rules that most operations follow when their operands are on several devices, and PyTorch's errors.

The rules and error texts are those of PyTorch 2.13: the checks that its code generator puts around every CUDA kernel
(torchgen/dest/register_dispatch_key.py, c10/core/impl), and those of TensorIterator.cpp. Those in the code of single
operations are in `single_rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pytest_llmdevice.simulation.operations import STRUCTURED

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor argument of an aten operation.

    Attributes:
        name: its name in the operation's schema.
        tensor: the CPU tensor.
        device: its device, simulated or real.
        written: whether the operation writes into it.
        is_out: whether it is there for the result alone.
    """

    name: str
    tensor: torch.Tensor
    device: torch.device
    written: bool = False
    is_out: bool = False

    @property
    def is_cpu_scalar(self) -> bool:
        """Whether it is a CPU tensor without dimensions, which kernels of a card accept as a number."""
        return self.device == CPU and self.tensor.dim() == 0 and not self.written


def type_name(tensor: torch.Tensor, device: torch.device) -> str:
    """The type of a tensor on `device` as errors spell it: `"torch.cuda.HalfTensor"`, `"CUDABFloat16Type"`."""
    name: str = torch.Tensor.type(tensor)
    if tensor.dtype == torch.bfloat16:
        # It is younger than the classes of tensors.
        return f"{device.type.upper()}BFloat16Type"
    return name if device == CPU else name.replace("torch.", f"torch.{device.type}.", 1)


def scalar_name(dtype: torch.dtype) -> str:
    """C++'s name of `dtype`, as PyTorch's errors spell it: `"Half"`."""
    name: str = torch.Tensor.type(torch.empty(0, dtype=dtype))
    return name.removeprefix("torch.").removesuffix("Tensor")


def attended_apart(query: torch.device, key: torch.device, value: torch.device) -> RuntimeError:
    """The error of attention over tensors on different devices (transformers/sdp_utils_cpp.h)."""
    return RuntimeError(
        f"Expected query, key, and value to have the same device type, but got query.device: {query} key.device: "
        f"{key} and value.device: {value} instead."
    )


Rule = Callable[[Any, Sequence[Operand], tuple[Any, ...]], torch.device]


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
                torch.broadcast_tensors(*(other.tensor for other in tensors if not other.is_out))  # type: ignore[no-untyped-call]
            raise two_devices(common, operand.device)
    return common


def two_devices(common: torch.device, other: torch.device) -> RuntimeError:
    """TensorIterator's error for operands on `common` and `other`."""
    return RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, {common} and {other}!"
    )


def wrapper_rule(func: Any, tensors: Sequence[Operand]) -> torch.device:
    """The generated wrapper's rule: all operands on the first one's device, also those without dimensions.

    With an operand on `meta` no card's kernel is called, and what is called instead has no such wrapper.
    """
    common = tensors[0].device
    for operand in tensors if all(operand.device.type != "meta" for operand in tensors) else ():
        if operand.device != common:
            raise wrapper_error(func, operand, common)
    return common


def wrapper_error(func: Any, operand: Operand, common: torch.device) -> RuntimeError:
    """The generated wrapper's error for an `operand` that is not on `common`."""
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
    # A product in a dtype that the call names has a kernel of its own.
    if (name.removesuffix("_") in STRUCTURED or name in STRUCTURED) and not overload.startswith("dtype"):
        return f"wrapper_{kind.upper()}_{name}{out}" + (f"_{overload}" if overload else "")
    return f"wrapper_{kind.upper()}_{overload}_{name}{out}"
