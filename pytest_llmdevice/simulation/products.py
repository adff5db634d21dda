"""Products of matrices in a dtype that the call names (`out_dtype=`), which CUDA and ROCm compute and the CPU does not,
and what they say of factors of different dtypes, which on the CPU depends on sizes.

Conditions and texts are those of PyTorch 2.13's CUDA build (tests/simulation/ground_truth/executed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import torch
from packaging.version import Version

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
    *added, left, right = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    batched = func.__name__ == "baddbmm"
    if added and (batched or left.dtype == right.dtype) and added[0].dtype not in (dtype, left.dtype):
        raise RuntimeError(f"self dtype must match either out_dtype or {'batch1' if batched else 'mat1'} dtype")
    if left.dtype != right.dtype:
        names = {"left": scalar_name(left.dtype), "right": scalar_name(right.dtype)}
        raise RuntimeError(_TEXTS[func.__name__].format(**names))
    if dtype != left.dtype and not (dtype is torch.float32 and left.dtype in _HALVES):
        raise RuntimeError("out_dtype must be the same as input dtype or fp32 for fp16/bf16 inputs")

    def cast(value: Any) -> Any:
        return run(torch.Tensor.to, (value, dtype), {}) if isinstance(value, torch.Tensor) else value

    positional = tuple(cast(value) for value in args if not isinstance(value, torch.dtype))
    return run(func, positional, {key: cast(value) for key, value in kwargs.items() if key != "out_dtype"})


MATMUL: Final = ("matmul", "__matmul__")

_OUTER: Final = Version(torch.__version__).release >= (2, 13)
"""Whether a card multiplies batches of columns with batches of rows element by element, whatever their dtypes: with
Triton, which PyTorch's wheels for Linux bring (torch._native.ops.bmm_outer_product)."""


def by_batches(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether `matmul` of these leaves the work to `bmm`: it is not folded into one product of matrices.

    After `should_fold` of aten/src/ATen/native/LinearAlgebra.cpp.
    """
    larger = left.dim() >= right.dim()
    many, few = (left, right) if larger else (right.mT if right.dim() > 1 else right, left)
    if many.dim() < 3:
        return False
    if few.dim() > 2:
        return True
    if few.requires_grad:
        return False
    if left.dim() == 2:
        return True
    if not many.numel():
        return False
    sizes, strides = many.shape, many.stride()
    return any(strides[place] != sizes[place + 1] * strides[place + 1] for place in range(many.dim() - 2))


def sums(equation: object) -> bool:
    """Whether `einsum` of `equation` sums over what two of its operands have; else it multiplies element by element."""
    if not isinstance(equation, str):
        return True
    given, _, result = equation.replace(" ", "").partition("->")
    operands = [set(operand.replace(".", "")) for operand in given.split(",")]
    shared = {letter for operand in operands for letter in operand if sum(letter in other for other in operands) > 1}
    return bool(shared - set(result))


def fit(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether the sizes that `matmul` sums over are the same."""
    return 0 in (left.dim(), right.dim()) or left.shape[-1] == right.shape[-min(2, right.dim())]


def is_outer(name: str, left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether a card computes this product as that of columns with rows."""
    of_one = min(left.dim(), right.dim()) > 1 and left.shape[-1] == right.shape[-2] == 1
    of_one = of_one and bool(left.numel() and right.numel()) and not left.is_complex()
    return _OUTER and of_one and (name == "bmm" or by_batches(left, right))


def outer(
    run: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> torch.Tensor | None:
    """The product of columns with rows of another dtype, in the dtype of the columns; None where it is another.

    Args:
        run: calls a function on the real CPU tensors.
        name: the function's name.
        args: its positional arguments, on one card.
        kwargs: its keyword arguments.
    """
    factors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    if name not in ("bmm", *MATMUL) or len(factors) != 2 or kwargs.get("out") is not None:
        return None
    left, right = factors
    if not is_outer(name, left, right):
        return None
    product: torch.Tensor = run(torch.Tensor.to, (run(torch.mul, (left, right), {}), left.dtype), {})
    return product


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
