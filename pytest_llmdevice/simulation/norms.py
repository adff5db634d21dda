"""Handlers of norms over features, groups and batches, whose kernels on a card take other dtypes than the CPU's.

The texts and conditions are those of PyTorch 2.13's CUDA build (tests/simulation/ground_truth/executed).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from pytest_llmdevice.simulation.composites import Arguments, Handler, checked
from pytest_llmdevice.simulation.function_names import functions_named
from pytest_llmdevice.simulation.rules import Operand, scalar_name, wrapper_rule

if TYPE_CHECKING:
    from pytest_llmdevice.simulation.functions import FunctionMode


def _layer_norm(mode: FunctionMode, given: Arguments) -> None:
    """A card's kernel takes parameters of the input's dtype only; the CPU's takes wider ones.

    Autocast makes them equal.

    Raises:
        RuntimeError: PyTorch's.
    """
    if not torch.is_autocast_enabled(mode.machine.device_type):
        _parameters(mode, given)


def _parameters(mode: FunctionMode, given: Arguments) -> None:
    values = given["input"]
    card = mode.common_card([value for value in given.values() if isinstance(value, torch.Tensor)])
    if card is None or card.type != "cuda":
        return
    for name in ("weight", "bias"):
        parameter = given.get(name)
        if parameter is not None and parameter.dtype != values.dtype:
            wanted, found = scalar_name(values.dtype), scalar_name(parameter.dtype)
            raise RuntimeError(f"expected scalar type {wanted} but found {found}")


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


def _with_statistics(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`native_layer_norm` and `native_batch_norm`: a card keeps statistics of 16-bit numbers in float32."""
    if func.__name__ == "native_layer_norm":
        _layer_norm(mode, dict(zip(("input", "shape", "weight", "bias"), args, strict=False)))
    result, *statistics = mode.compute(func, args, kwargs)
    if mode.tags.of(result) is None or result.dtype not in (torch.float16, torch.bfloat16):
        return (result, *statistics)
    return (result, *(mode.compute(torch.Tensor.float, (each,), {}) for each in statistics))


def norm_handlers() -> dict[Any, Handler]:
    """Torch function -> its handler `(mode, function, args, kwargs) -> result`."""
    by_name = {
        "native_group_norm": checked(_parameters, "input", "weight", "bias"),
        "layer_norm": checked(_layer_norm, "input", "normalized_shape", "weight", "bias"),
        "group_norm": checked(_layer_norm, "input", "num_groups", "weight", "bias"),
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
