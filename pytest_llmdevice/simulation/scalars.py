"""Numbers that a dtype cannot hold: where a card's kernels refuse what the CPU's accept, and the other way round.

As PyTorch 2.13's CUDA build answers: a card fills one element as it fills many, and compares 16-bit numbers with bounds
in float32 (aten/src/ATen/native/Fill.cpp, cuda/TensorCompare.cu).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Final

import torch

from pytest_llmdevice.simulation.function_names import functions_named

if TYPE_CHECKING:
    from pytest_llmdevice.simulation.functions import FunctionMode

Handler = Callable[["FunctionMode", Any, tuple[Any, ...], dict[str, Any]], Any]

NAMES: Final = {torch.float16: "c10::Half", torch.bfloat16: "c10::BFloat16", torch.float32: "float"}
"""The dtypes whose range a number may leave -> what C++ calls them."""

FILLED: Final = ("fill_", "constant_", "full", "full_like", "new_full", "scalar_tensor")
BOUNDED: Final = ("clamp", "clamp_", "clamp_min", "clamp_min_", "clamp_max", "clamp_max_", "clip", "clip_")


def overflow(value: object, dtype: torch.dtype) -> RuntimeError | None:
    """The error of a kernel that is handed the number `value` for a tensor of `dtype`; None where it fits."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or dtype not in NAMES or abs(value) == inf:
        return None
    if not abs(value) > torch.finfo(dtype).max:
        return None
    return RuntimeError(f"value cannot be converted to type {NAMES[dtype]} without overflow")


def _on_cuda(mode: FunctionMode, result: Any) -> bool:
    card = mode.tags.of(result) if isinstance(result, torch.Tensor) else None
    return card is not None and card.type == "cuda"


def _filled(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A function that fills a tensor with a number."""
    factory = func.__name__ in ("full", "scalar_tensor")
    result = mode.construct(func, args, kwargs) if factory else mode.compute(func, args, kwargs)
    if _on_cuda(mode, result) and result.numel():
        for value in (*args, *kwargs.values()):
            if (refusal := overflow(value, result.dtype)) is not None:
                raise refusal
    return result


def _where(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`where` of a tensor and a number, of which a card makes a tensor of the same dtype."""
    result = mode.compute(func, args, kwargs)
    if _on_cuda(mode, result) and result.dtype is not torch.float32:
        for value in (*args[1:], *kwargs.values()):
            if (refusal := overflow(value, result.dtype)) is not None:
                raise refusal
    return result


def within_float32(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The arguments of a clamp of 16-bit numbers, with the bounds that their dtype cannot hold as infinite ones.

    None where it is of others.

    Raises:
        RuntimeError: PyTorch's, for a bound that float32 cannot hold.
    """
    tensor = args[0] if args else kwargs.get("input")
    if not isinstance(tensor, torch.Tensor) or tensor.dtype not in (torch.float16, torch.bfloat16):
        return None

    def bound(value: Any) -> Any:
        if (refusal := overflow(value, torch.float32)) is not None:
            raise refusal
        if overflow(value, tensor.dtype) is None:
            return value
        return inf if value > 0 else -inf

    return tuple(map(bound, args)), {name: bound(value) for name, value in kwargs.items()}


def scalar_handlers() -> dict[Any, Handler]:
    """Torch function -> its handler `(mode, function, args, kwargs) -> result`."""
    table: dict[Any, Handler] = dict.fromkeys(functions_named(FILLED), _filled)
    # transformers puts a function of its own in the place of PyTorch's while it loads a model.
    for module in (torch.nn.init, sys.modules.get("transformers.initialization")):
        if (constant := getattr(module, "constant_", None)) is not None:
            table[constant] = _filled
    table.update(dict.fromkeys(functions_named(["where"]), _where))
    return table
