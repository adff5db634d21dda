"""Computes what a card's kernels support and the CPU's do not: in a wider dtype, from which the result is cast back.

What only the CPU's kernels support is refused, see `refusals`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import torch

from pytest_llmdevice.simulation import kernel_names, products, refusals, scalars

_HALF: Final = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
_SMALL_INTEGERS: Final = dict.fromkeys((torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64), torch.float64)
_FFT: Final = {torch.float16: torch.float32}

_BY_INDEX: Final = ("max_unpool1d", "max_unpool2d", "max_unpool3d")
"""Functions whose other operands are indices, and stay as they are."""

WIDER: Final[dict[str, dict[torch.dtype, torch.dtype]]] = {
    "abs": {torch.bool: torch.uint8},
    "trace": {torch.bool: torch.int64},
    "histc": _SMALL_INTEGERS,
    "avg_pool3d": _HALF,
    "lp_pool3d": _HALF,
    "multi_margin_loss": _HALF,
    "multilabel_margin_loss": _HALF,
    "rrelu": {torch.float16: torch.float32},
    "median": {torch.bool: torch.uint8},
    "nanmedian": {torch.bool: torch.uint8},
    "interpolate": _HALF,
    "binomial": _HALF,
    "softsign": {torch.bool: torch.uint8},
    **dict.fromkeys(_BY_INDEX, _SMALL_INTEGERS),
    **dict.fromkeys(
        ("gather", "scatter", "take_along_dim", "flip", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle"),
        dict.fromkeys(refusals.NARROW, torch.float32),
    ),
    **dict.fromkeys(
        (f"fft_{name}{rank}" for name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft") for rank in ("", "2", "n")),
        _FFT,
    ),
}
"""Function -> dtype -> the dtype it is computed in. From PyTorch's own table of operations
(torch.testing._internal.common_methods_invocations.op_db, 2.13): those with dtypes in `dtypesIfCUDA` that `dtypes`
lacks."""

_NOTHING: Final = {
    "adaptive_avg_pool3d": {
        **_SMALL_INTEGERS,
        torch.bool: torch.float64,
        **dict.fromkeys(refusals.NARROW, torch.float32),
    }
}
"""The same of functions of which a card finds that there is nothing to compute before it looks for a kernel."""

_NOT_CAST_BACK: Final = frozenset(("trace", "softsign"))
"""Functions that make numbers of truth values."""

_MISSING: Final = re.compile(r"not implemented for '\w+'|Unsupported dtype|not supported on CPU|Expected .* dtype")


def rerun_wider(
    run: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any],
    func: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    error: Exception,
    device_type: str,
) -> Any:
    """Compute in a wider dtype what raised `error` on the CPU because it has no kernel for the dtype.

    Args:
        run: calls a function on the real CPU tensors.
        func: the function that raised.
        args: its positional arguments.
        kwargs: its keyword arguments.
        error: what it raised.
        device_type: PyTorch's name of the card's type.

    Returns:
        The result in the dtype that the card would return.

    Raises:
        Exception: cards have no kernel either: `error` with the text that a card's kernel has.
    """
    dtype = products.named_dtype(func, args, kwargs)
    if dtype is not None and device_type == "cuda" and isinstance(error, NotImplementedError):
        return products.in_dtype(run, func, args, kwargs, dtype)
    name = getattr(func, "__name__", "")
    if device_type == "cuda" and name in scalars.BOUNDED and "without overflow" in str(error):
        bounded = scalars.within_float32(args, kwargs)
        if bounded is not None:
            return run(func, *bounded)
    if device_type == "cuda" and (product := products.outer(run, name, args, kwargs)) is not None:
        return product
    if device_type == "cuda" and (refusal := products.of_mixed_batches(name, args, kwargs, error)) is not None:
        raise refusal from error
    first = next((value for value in args if isinstance(value, torch.Tensor)), None)
    dims = 0 if first is None else first.dim()
    wider = WIDER.get(name)
    if first is not None and not first.numel():
        wider = _NOTHING.get(name, wider)
    if wider is None or _MISSING.search(str(error)) is None:
        raise _translated(error, device_type, dims, name) from error
    narrow: set[torch.dtype] = set()

    def widen(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dtype in wider and (value is first or name not in _BY_INDEX):
            narrow.add(value.dtype)
            return run(torch.Tensor.to, (value, wider[value.dtype]), {})
        return value

    widened = tuple(map(widen, args)), {key: widen(value) for key, value in kwargs.items()}
    if len(narrow) != 1:
        raise _translated(error, device_type, dims, name) from error
    result = run(func, *widened)
    given = narrow.pop()
    if not isinstance(result, torch.Tensor) or (given is torch.bool and name in _NOT_CAST_BACK):
        return result
    return run(torch.Tensor.to, (result, torch.complex32 if result.is_complex() else given), {})


_BERNOULLI: Final = re.compile(r"\"bernoulli_tensor_cpu_p_\" not implemented for '(\w+)'")
_MASKED: Final = re.compile(r"^masked_scatter: expected self and source to have same dtypes but got(?=\w)(\w+)")
_CROSS: Final = re.compile(r"^expected scalar type (\w+) but found (\w+)$")
_PER_SAMPLE: Final = re.compile(
    r"'per_sample_weights'; but type \S*?(\w+?)(?:Tensor|Type) does not equal \S*?(\w+?)(?:Tensor|Type) \("
)
_TENSOR_TYPE: Final = re.compile(r"\btorch\.(?=(?:Float|Half|BFloat16|Double|Long|Int|Short|Char|Byte|Bool)Tensor\b)")


def _translated(error: Exception, device_type: str, dims: int, name: str) -> Exception:
    if device_type == "cuda" and (found := _BERNOULLI.match(str(error))):
        return RuntimeError(f"expected probabilities tensor to have floating type, got {found[1]}")
    text = _TENSOR_TYPE.sub(f"torch.{device_type}.", str(error))
    # The check is the same, the text differs by backend (aten/src/ATen/native/LinearAlgebra.cpp, cuda/Blas.cpp).
    text = text.replace("expected m1 and m2 to have the same dtype", "expected mat1 and mat2 to have the same dtype")
    if device_type == "cuda":
        if "cross" in name:
            text = _CROSS.sub(r"Found dtype \2 but expected \1", text)
        if name == "embedding_bag" and (found := _PER_SAMPLE.search(text.replace("CPUB", "B"))):
            text = f"expected scalar type {found[1]} but found {found[2]}"
        text = _MASKED.sub(r"masked_scatter_: expected self and source to have same dtypes but got \1", text)
        text = kernel_names.of_a_card(text, dims, name)
    return error if text == str(error) else type(error)(text)
