"""Handlers of norms over features, groups and batches, whose kernels on a card take other dtypes than the CPU's.

The texts and conditions are those of PyTorch 2.13's CUDA build (tests/simulation/ground_truth/executed).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from pytest_llmdevice.simulation import refusals
from pytest_llmdevice.simulation.composites import Arguments, Handler, checked
from pytest_llmdevice.simulation.function_names import functions_named
from pytest_llmdevice.simulation.rules import Operand, scalar_name, type_name, wrapper_rule

if TYPE_CHECKING:
    from pytest_llmdevice.simulation.functions import FunctionMode


def _layer_norm(mode: FunctionMode, given: Arguments) -> None:
    """A card's kernel takes parameters of the input's dtype only; the CPU's takes wider ones.

    Raises:
        RuntimeError: PyTorch's.
        NotImplementedError: PyTorch's, for integers.
    """
    if _on_cuda(mode, given):
        dtype = _cast(mode, given["input"].dtype)
        refusals.refuse_numbers("LayerNormKernelImpl", dtype)
        for name in ("weight", "bias"):
            if given.get(name) is not None:
                refusals.refuse_other_dtype(dtype, _cast(mode, given[name].dtype))


def _group_norm(mode: FunctionMode, given: Arguments) -> None:
    """Autocast makes float32 of everything that `native_group_norm` does not take as it is."""
    if not torch.is_autocast_enabled(mode.machine.device_type):
        _native_group_norm(mode, given)


def _native_group_norm(mode: FunctionMode, given: Arguments) -> None:
    """A card refuses parameters in float32 to an input of 16 bits; other mixtures are refused on any device.

    Raises:
        RuntimeError: PyTorch's.
    """
    parameters = [given[name] for name in ("weight", "bias") if given.get(name) is not None]
    dtype = given["input"].dtype
    mixed = dtype in (torch.float16, torch.bfloat16) and all(each.dtype == torch.float32 for each in parameters)
    if mixed and parameters and _on_cuda(mode, given):
        refusals.refuse_other_dtype(dtype, torch.float32)


def _on_cuda(mode: FunctionMode, given: Arguments) -> bool:
    card = mode.common_card([value for value in given.values() if isinstance(value, torch.Tensor)])
    return card is not None and card.type == "cuda"


def _cast(mode: FunctionMode, dtype: torch.dtype) -> torch.dtype:
    """What autocast, where it is on, makes of numbers for a norm: float32 of narrower ones."""
    narrow = dtype.is_floating_point and dtype != torch.float64
    return torch.float32 if narrow and torch.is_autocast_enabled(mode.machine.device_type) else dtype


_NORMALIZED: Final = ("weight", "bias", "running_mean", "running_var")
_LARGEST: Final = {True: 880801, False: 65535}
"""Training -> the largest batch that cuDNN normalizes (aten/src/ATen/native/Normalization.cpp)."""


def _batch_norm(mode: FunctionMode, given: Arguments) -> None:
    """A card leaves most batch norms to cuDNN, whose wrapper has another name and another order.

    Raises:
        RuntimeError: PyTorch's, for operands on different devices.
    """
    values = given["input"]
    weight, bias, mean, variance = (given.get(name) for name in _NORMALIZED)
    training = bool(given.get("training", given.get("use_input_stats", False)))
    if mode.device_of(values).type != "cuda" or weight is None or bias is None or values.dim() <= 2:
        return
    dtypes = {values.dtype, weight.dtype}
    by_cudnn = (
        torch.bfloat16 not in dtypes
        and (values.dtype != torch.float16 or weight.dtype == torch.float32)
        and ((mean is None) == (variance is None))
        and (mean is not None or training)
        and values.shape[0] <= _LARGEST[training]
        and torch.backends.cudnn.enabled
    )
    if by_cudnn:
        operands = [Operand("input", values, mode.device_of(values))]
        named = ((name, given.get(name)) for name in _NORMALIZED)
        operands += [Operand(name, value, mode.device_of(value)) for name, value in named if value is not None]
        wrapper_rule(torch.ops.aten.cudnn_batch_norm.default, operands)
        card = mode.device_of(values)
        if values.dtype != torch.float16:
            _refuse_types(card, (1, "input", values), (2, "weight", weight))
        for number, name in ((3, "bias"), (4, "running_mean"), (5, "running_var")):
            if given.get(name) is not None:
                _refuse_types(card, (2, "weight", weight), (number, name, given[name]))
    else:
        _native_batch_norm(mode, given)


def _native_batch_norm(mode: FunctionMode, given: Arguments) -> None:
    """PyTorch's own kernel takes parameters of the input's dtype, or in float32.

    Raises:
        RuntimeError: PyTorch's.
    """
    dtype = given["input"].dtype
    takes = {dtype, torch.float32} if dtype in (torch.float16, torch.bfloat16) else {dtype}
    # Of integers the statistics are missed first.
    for name in ("weight", "bias") if dtype.is_floating_point and _on_cuda(mode, given) else ():
        parameter = given.get(name)
        if parameter is not None and parameter.dtype not in takes:
            wanted, found = scalar_name(dtype), scalar_name(parameter.dtype)
            raise RuntimeError(f"Expected {name} to have type {wanted} but got {found}")


def _refuse_types(card: torch.device, *arguments: tuple[int, str, torch.Tensor]) -> None:
    """What cuDNN's caller says of arguments, given as (number, name, value), of different dtypes."""
    (first, name, one), (second, other_name, other) = arguments
    if one.dtype != other.dtype:
        raise RuntimeError(
            f"Expected tensor for argument #{first} '{name}' to have the same type as tensor for argument #{second} "
            f"'{other_name}'; but type {type_name(one, card)} does not equal {type_name(other, card)} (while checking "
            "arguments for cudnn_batch_norm)"
        )


def _with_statistics(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`native_layer_norm` and `native_batch_norm`: a card keeps statistics of 16-bit numbers in float32."""
    if func.__name__ == "native_layer_norm":
        _layer_norm(mode, dict(zip(("input", "shape", "weight", "bias"), args, strict=False)))
    else:
        _native_batch_norm(mode, dict(zip(("input", "weight", "bias"), args, strict=False)))
    result, *statistics = mode.compute(func, args, kwargs)
    if mode.tags.of(result) is None or result.dtype not in (torch.float16, torch.bfloat16):
        return (result, *statistics)
    return (result, *(mode.compute(torch.Tensor.float, (each,), {}) for each in statistics))


def norm_handlers() -> dict[Any, Handler]:
    """Torch function -> its handler `(mode, function, args, kwargs) -> result`."""
    by_name = {
        "native_group_norm": checked(_native_group_norm, "input", "weight", "bias"),
        "layer_norm": checked(_layer_norm, "input", "normalized_shape", "weight", "bias"),
        "group_norm": checked(_group_norm, "input", "num_groups", "weight", "bias"),
        "native_layer_norm": _with_statistics,
        "native_batch_norm": _with_statistics,
    }
    table: dict[Any, Handler] = {}
    for name, handler in by_name.items():
        table.update(dict.fromkeys(functions_named([name]), handler))
    parameters = {
        torch.nn.functional: ("input", "running_mean", "running_var", "weight", "bias"),
        torch: ("input", "weight", "bias", "running_mean", "running_var"),
    }
    for space, order in parameters.items():
        for name in ("batch_norm", "instance_norm"):
            last = "training" if name == "batch_norm" else "use_input_stats"
            table[getattr(space, name)] = checked(_batch_norm, *order, last)
    return table
