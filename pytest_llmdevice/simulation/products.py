"""Products of matrices in a dtype that the call names (`out_dtype=`), which CUDA and ROCm compute and the CPU does not,
and what they say of factors of different dtypes, which on the CPU depends on sizes.

Conditions and texts are those of PyTorch 2.13's CUDA build (tests/simulation/ground_truth/executed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import torch

from pytest_llmdevice.simulation.rules import scalar_name

_TEXTS: Final = {
    "mm": "input dtypes must be the same",
    "bmm": "batch1 and batch2 must have the same dtype",
    "addmm": "mat1 and mat2 must have the same dtype, but got {left} and {right}",
    "baddbmm": "batch1 and batch2 must have the same dtype",
}
"""Product -> what it says of factors of different dtypes."""

_HALVES: Final = (torch.float16, torch.bfloat16)


def named_dtype(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.dtype | None:
    """The dtype in which a product is asked for; None where the call names none, or is no product."""
    if getattr(func, "__name__", "") not in _TEXTS:
        return None
    named = kwargs.get("out_dtype")
    return named if named is not None else next((value for value in args if isinstance(value, torch.dtype)), None)


def in_dtype(
    run: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any],
    func: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    dtype: torch.dtype,
) -> Any:
    """Compute a product in `dtype`.

    Args:
        run: calls a function on the real CPU tensors.
        func: the product.
        args: its positional arguments; all tensors are on one card.
        kwargs: its keyword arguments.
        dtype: what `named_dtype` found.

    Raises:
        RuntimeError: PyTorch's, for dtypes that a card does not combine.
    """
    left, right = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)][-2:]
    if left.dtype != right.dtype:
        names = {"left": scalar_name(left.dtype), "right": scalar_name(right.dtype)}
        raise RuntimeError(_TEXTS[func.__name__].format(**names))
    if dtype != left.dtype and not (dtype is torch.float32 and left.dtype in _HALVES):
        raise RuntimeError("out_dtype must be the same as input dtype or fp32 for fp16/bf16 inputs")

    def cast(value: Any) -> Any:
        return run(torch.Tensor.to, (value, dtype), {}) if isinstance(value, torch.Tensor) else value

    positional = tuple(cast(value) for value in args if not isinstance(value, torch.dtype))
    return run(func, positional, {key: cast(value) for key, value in kwargs.items() if key != "out_dtype"})


_BATCHED: Final = ("bmm", "baddbmm", "baddbmm_", "einsum", "matmul", "__matmul__")
_DTYPES: Final = ("expected m1 and m2 to have the same dtype", "expected scalar type")


def of_mixed_batches(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> RuntimeError | None:
    """What a card says of batches of matrices of different dtypes; None where `error` is another.

    Args:
        name: the function's name.
        args: its positional arguments.
        kwargs: its keyword arguments.
        error: what the CPU raised.
    """
    if name not in _BATCHED or not str(error).startswith(_DTYPES):
        return None
    factors = [value for value in _flat((*args, *kwargs.values())) if isinstance(value, torch.Tensor)][-2:]
    if len(factors) < 2 or factors[0].dtype == factors[1].dtype:
        return None
    if "matmul" in name and min(factor.dim() for factor in factors) < 3:
        return None
    wanted, found = (scalar_name(factor.dtype) for factor in factors)
    return RuntimeError(f"expected scalar type {wanted} but found {found}")


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value
