"""Refuses what the CPU's kernels support and a card's do not: dtypes, and operations that have no kernel for CUDA.

The texts are those of PyTorch 2.13's CUDA build (tests/simulation/ground_truth/executed).
"""

from __future__ import annotations

from typing import Final

import torch

from pytest_llmdevice.simulation import products
from pytest_llmdevice.simulation.rules import scalar_name

INTEGER_PRODUCTS: Final = tuple(
    """
    matmul __matmul__ __rmatmul__ linear mm bmm mv dot vdot inner addmm addmm_ addmv baddbmm baddbmm_ addbmm
    chain_matmul einsum tensordot bilinear
    """.split()  # noqa: SIM905
)
"""Products that the CPU computes for integers and cards do not (from `op_db` too: `dtypesIfCUDA` lacks integers)."""

_INTEGERS: Final = frozenset((torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool))
NARROW: Final = (torch.float8_e4m3fn, torch.float8_e5m2)
"""The dtypes of packed weights, which hardly any kernel takes."""

_UNMULTIPLIED: Final = frozenset(
    (*_INTEGERS, *NARROW, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu)
)


def _not_implemented(kernel: str, dtype: torch.dtype) -> NotImplementedError:
    return NotImplementedError(f"\"{kernel}\" not implemented for '{scalar_name(dtype)}'")


def is_multiplied(dtype: torch.dtype) -> bool:
    """Whether cards have kernels for products of matrices of this dtype; `torch._scaled_mm` is one of its own."""
    return dtype not in _UNMULTIPLIED


def refuse_product(name: str, tensors: list[torch.Tensor]) -> None:
    """Raise what a CUDA kernel raises for a product of integers, or of numbers of 8 bits.

    Args:
        name: the function's name.
        tensors: its factors, preceded by the tensor that they are added to, if any.

    Raises:
        NotImplementedError: the factors are such numbers.
        RuntimeError: the same, where it is Triton that has no kernel.
    """
    if not tensors or is_multiplied(tensors[0].dtype):
        return
    dims = tuple(tensor.dim() for tensor in tensors[-2:])
    by_name = name in ("bilinear", "baddbmm", "baddbmm_")
    if by_name and len({tensor.dtype for tensor in tensors}) > 1:
        # That they differ is found first, on any device.
        return
    if name in ("bmm", *products.MATMUL) and products.is_outer(name, tensors[-2], tensors[-1]):
        if all(tensor.dtype in NARROW for tensor in tensors):
            raise RuntimeError("PassManager::run failed")
        return
    if name in products.MATMUL and not products.fit(tensors[-2], tensors[-1]):
        # That is found before, too.
        return
    if name in ("addbmm", "tensordot"):
        kernel = "addmm_cuda"
    elif (
        "bmm" in name
        or name in ("bilinear", "einsum")
        or min(dims) > 2
        or (max(dims) > 2 and name not in ("linear", *products.MATMUL))
        or (name in products.MATMUL and products.by_batches(tensors[-2], tensors[-1]))
    ):
        kernel = "baddbmm_cuda"
    elif dims == (1, 1):
        kernel = "dot"
    elif dims == (2, 1) or name in ("mv", "addmv"):
        kernel = "addmv_impl_cuda"
    else:
        kernel = "addmm_cuda"
    if kernel != "baddbmm_cuda" and len({tensor.dtype for tensor in tensors}) > 1:
        # Here too.
        return
    raise _not_implemented(kernel, tensors[0].dtype)


_LONG: Final = {torch.int64: "avg_pool2d_out_cuda_frame"}
_POOLED: Final = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_HALVES: Final = (torch.float16, torch.bfloat16)

REFUSED: Final[dict[str, dict[torch.dtype, str]]] = {
    **dict.fromkeys(("abs", "absolute"), dict.fromkeys(NARROW, "abs_cuda")),
    **dict.fromkeys(("outer", "ger", "kron"), dict.fromkeys(NARROW, "mul_cuda")),
    **{name: {torch.float8_e5m2: "abs_cuda"} for name in ("isfinite", "isinf")},
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
        raise _not_implemented(kernel, tensor.dtype)


def refuse_other_dtype(values: torch.dtype, parameter: torch.dtype) -> None:
    """Raise what a card's kernel raises for a parameter of another dtype than its input.

    Raises:
        RuntimeError: PyTorch's.
    """
    if parameter != values:
        raise RuntimeError(f"expected scalar type {scalar_name(values)} but found {scalar_name(parameter)}")


def refuse_numbers(kernel: str, dtype: torch.dtype) -> None:
    """Raise what a card's `kernel` raises for integers, and for numbers of 8 bits.

    Raises:
        NotImplementedError: PyTorch's.
    """
    if not is_multiplied(dtype):
        raise _not_implemented(kernel, dtype)


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
