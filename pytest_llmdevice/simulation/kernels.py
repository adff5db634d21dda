"""Computes what a card's kernels support and the CPU's do not, and refuses what only the CPU's support.

A dtype that only cards support is computed in a wider dtype and cast back; one that only the CPU supports is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import torch

from pytest_llmdevice.simulation import kernel_names

_HALF: Final = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
_SMALL_INTEGERS: Final = dict.fromkeys((torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64), torch.float64)
_FFT: Final = {torch.float16: torch.float32}

WIDER: Final[dict[str, dict[torch.dtype, torch.dtype]]] = {
    "abs": {torch.bool: torch.uint8},
    "trace": {torch.bool: torch.int64},
    "histc": _SMALL_INTEGERS,
    "avg_pool3d": _HALF,
    "multi_margin_loss": _HALF,
    "multilabel_margin_loss": _HALF,
    "rrelu": {torch.float16: torch.float32},
    "median": {torch.bool: torch.uint8},
    "nanmedian": {torch.bool: torch.uint8},
    "interpolate": _HALF,
    **dict.fromkeys(
        (f"fft_{name}{rank}" for name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft") for rank in ("", "2", "n")),
        _FFT,
    ),
}
"""Function -> dtype -> the dtype it is computed in. From PyTorch's own table of operations
(torch.testing._internal.common_methods_invocations.op_db, 2.13): those with dtypes in `dtypesIfCUDA` that `dtypes`
lacks."""

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
    wider = WIDER.get(getattr(func, "__name__", ""))
    dims = next((value.dim() for value in args if isinstance(value, torch.Tensor)), 0)
    if wider is None or _MISSING.search(str(error)) is None:
        raise _translated(error, device_type, dims) from error
    narrow: set[torch.dtype] = set()

    def widen(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dtype in wider:
            narrow.add(value.dtype)
            return run(torch.Tensor.to, (value, wider[value.dtype]), {})
        return value

    widened = tuple(map(widen, args)), {key: widen(value) for key, value in kwargs.items()}
    if len(narrow) != 1:
        raise _translated(error, device_type, dims) from error
    result = run(func, *widened)
    dtype = narrow.pop()
    if not isinstance(result, torch.Tensor) or (dtype is torch.bool and func.__name__ == "trace"):
        return result
    return run(torch.Tensor.to, (result, torch.complex32 if result.is_complex() else dtype), {})


_TENSOR_TYPE: Final = re.compile(r"\btorch\.(?=(?:Float|Half|BFloat16|Double|Long|Int|Short|Char|Byte|Bool)Tensor\b)")


def _translated(error: Exception, device_type: str, dims: int) -> Exception:
    text = _TENSOR_TYPE.sub(f"torch.{device_type}.", str(error))
    # The check is the same, the text differs by backend (aten/src/ATen/native/LinearAlgebra.cpp, cuda/Blas.cpp).
    text = text.replace("expected m1 and m2 to have the same dtype", "expected mat1 and mat2 to have the same dtype")
    if device_type == "cuda":
        text = kernel_names.of_a_card(text, dims)
    return error if text == str(error) else type(error)(text)


INTEGER_PRODUCTS: Final = tuple(
    """
    matmul __matmul__ __rmatmul__ linear mm bmm mv dot vdot inner addmm addmm_ addmv baddbmm baddbmm_ addbmm
    chain_matmul einsum tensordot bilinear
    """.split()  # noqa: SIM905
)
"""Products that the CPU computes for integers and cards do not (from `op_db` too: `dtypesIfCUDA` lacks integers)."""

_SCALAR_TYPES: Final = {
    torch.int64: "Long",
    torch.int32: "Int",
    torch.int16: "Short",
    torch.int8: "Char",
    torch.uint8: "Byte",
    torch.bool: "Bool",
}


def refuse_integers(name: str, tensors: list[torch.Tensor]) -> None:
    """Raise what a CUDA kernel raises for a product of integers.

    Args:
        name: the function's name.
        tensors: its factors, preceded by the tensor that they are added to, if any.

    Raises:
        NotImplementedError: the factors are integers.
    """
    if not tensors or (scalar := _SCALAR_TYPES.get(tensors[0].dtype)) is None:
        return
    dims = tuple(tensor.dim() for tensor in tensors[-2:])
    if name in ("addbmm", "tensordot"):
        kernel = "addmm_cuda"
    elif (
        "bmm" in name
        or name in ("bilinear", "einsum")
        or min(dims) > 2
        or (max(dims) > 2 and name not in ("linear", "matmul", "__matmul__"))
    ):
        kernel = "baddbmm_cuda"
    elif dims == (1, 1):
        kernel = "dot"
    elif dims == (2, 1) or name in ("mv", "addmv"):
        kernel = "addmv_impl_cuda"
    else:
        kernel = "addmm_cuda"
    if kernel != "baddbmm_cuda" and len({tensor.dtype for tensor in tensors}) > 1:
        # That they differ is found first, on any device.
        return
    raise NotImplementedError(f"\"{kernel}\" not implemented for '{scalar}'")


_LONG: Final = {torch.int64: "avg_pool2d_out_cuda_frame"}
_POOLED: Final = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_HALVES: Final = (torch.float16, torch.bfloat16)

REFUSED: Final[dict[str, dict[torch.dtype, str]]] = {
    "angle": dict.fromkeys(_HALVES, "angle_cuda"),
    "igamma": dict.fromkeys(_HALVES, "igamma_cuda"),
    "igammac": dict.fromkeys(_HALVES, "igammac_cuda"),
    "avg_pool1d": _LONG,
    "avg_pool2d": _LONG,
    "avg_pool3d": {torch.int64: "avg_pool3d_out_cuda"},
    "local_response_norm": _LONG,
    **dict.fromkeys(
        ("max_pool2d", "max_pool1d_with_indices", "max_pool2d_with_indices"),
        dict.fromkeys(_POOLED, "max_pool2d_with_indices_out_cuda_frame"),
    ),
    **dict.fromkeys(
        ("max_pool3d", "max_pool3d_with_indices"), dict.fromkeys(_POOLED, "max_pool3d_with_indices_out_frame")
    ),
    "histc": {torch.bfloat16: "histc"},
    "upsample_bilinear": {torch.uint8: "upsample_bilinear2d_out_frame"},
}
"""Function -> dtype that the CPU computes and CUDA does not -> the name of the card's kernel."""

_RESAMPLING: Final = {"bilinear": "upsample_bilinear2d_out_frame", "bicubic": "upsample_bicubic2d_out_frame"}


def refuse_dtype(name: str, tensor: torch.Tensor, mode: str | None = None) -> None:
    """Raise what a CUDA kernel raises for a dtype that it was not compiled for, and the CPU's was.

    Args:
        name: the function's name.
        tensor: its first operand.
        mode: how `interpolate` is to do it.

    Raises:
        NotImplementedError: a card has no such kernel.
        RuntimeError: the same, in the words of `histc` for float16.
    """
    if name == "histc" and tensor.dtype == torch.float16:
        raise RuntimeError("HalfTensor is not supported")
    if name == "interpolate":
        kernel = _RESAMPLING.get(str(mode)) if tensor.dtype == torch.uint8 else None
    else:
        kernel = REFUSED.get(name, {}).get(tensor.dtype)
    if kernel is not None:
        scalar = torch.Tensor.type(torch.empty(0, dtype=tensor.dtype)).removeprefix("torch.").removesuffix("Tensor")
        raise NotImplementedError(f"\"{kernel}\" not implemented for '{scalar}'")


def refuse_numbers(kernel: str, dtype: torch.dtype) -> None:
    """Raise what a card's `kernel` raises for integers.

    Raises:
        NotImplementedError: PyTorch's.
    """
    if (scalar := _SCALAR_TYPES.get(dtype)) is not None:
        raise NotImplementedError(f"\"{kernel}\" not implemented for '{scalar}'")


MISSING_OPERATIONS: Final = (
    "_spdiags",
    "_convert_weight_to_int4pack_for_cpu",
    "_weight_int4pack_mm_for_cpu",
    "_dyn_quant_pack_4bit_weight",
    "_dyn_quant_matmul_4bit",
)
"""Functions that are operations of aten with a kernel for the CPU and none for CUDA, as the CUDA build's dispatcher
lists them; `histogram` and `histogramdd` are such too."""


def missing_operation(name: str) -> NotImplementedError:
    """What the dispatcher raises for the aten operation `name`; on a card it goes on with a list of its backends."""
    return NotImplementedError(f"Could not run 'aten::{name}' with arguments from the 'CUDA' backend.")
