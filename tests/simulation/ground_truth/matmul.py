"""Matrix products, and layers as functions that stand on a checked one."""

from __future__ import annotations

from collections.abc import Iterator

from .declare import (
    CARD,
    CPU,
    GENERATED,
    KERNEL,
    OTHER,
    Case,
    Outcome,
    Raises,
    checked,
    family,
    gives,
    placements,
    runtime,
)

LINEAR = "aten/src/ATen/native/Linear.cpp: linear"
MATMUL = "aten/src/ATen/native/LinearAlgebra.cpp: _matmul_impl"
BLAS = "aten/src/ATen/native/cuda/Blas.cpp"
META = "aten/src/ATen/native/LinearAlgebra.cpp: ADDMM_META"

X, W, B = "float32 2x3", "float32 4x3", "float32 4"

FAMILIES = [
    ("mm", "torch.mm(self, mat2)", "mm", {"self": X, "mat2": "float32 3x4"}, ""),
    ("bmm", "torch.bmm(self, mat2)", "bmm", {"self": "float32 2x2x3", "mat2": "float32 2x3x2"}, ""),
    ("addmm", "torch.addmm(self, mat1, mat2)", "addmm", {"self": B, "mat1": X, "mat2": "float32 3x4"}, ""),
    (
        "addmm_",
        "self.addmm_(mat1, mat2)",
        "addmm_",
        {"self": "float32 2x4", "mat1": X, "mat2": "float32 3x4"},
        "",
    ),
    (
        "baddbmm",
        "torch.baddbmm(self, batch1, batch2)",
        "baddbmm",
        {"self": "float32 2x2x2", "batch1": "float32 2x2x3", "batch2": "float32 2x3x2"},
        "",
    ),
    ("addmv", "torch.addmv(self, mat, vec)", "addmv", {"self": "float32 2", "mat": X, "vec": "float32 3"}, ""),
    ("dot", "torch.dot(self, tensor)", "_dot", {"self": "float32 3", "tensor": "float32 3"}, ""),
    ("matmul[1d]", "self @ tensor", "_dot", {"self": "float32 3", "tensor": "float32 3"}, MATMUL),
    ("matmul[2d]", "self @ mat2", "mm", {"self": X, "mat2": "float32 3x4"}, MATMUL),
    ("matmul[3d]", "self @ mat2", "bmm", {"self": "float32 2x2x3", "mat2": "float32 2x3x2"}, MATMUL),
    ("matmul[4d]", "self @ mat2.mT", "bmm", {"self": "float32 1x2x2x3", "mat2": "float32 1x2x2x3"}, MATMUL),
    ("matmul[folded]", "self @ mat2", "mm", {"self": "float32 2x2x3", "mat2": "float32 3x4"}, MATMUL),
    ("linear", "F.linear(mat1, mat2, self)", "addmm", {"self": B, "mat1": X, "mat2": W}, LINEAR),
    ("linear[3d]", "F.linear(mat1, mat2, self)", "addmm", {"self": B, "mat1": "float32 2x2x3", "mat2": W}, LINEAR),
    ("linear/no bias", "F.linear(self, mat2)", "mm", {"self": X, "mat2": W}, f"{LINEAR}, {MATMUL}"),
    ("linear[3d]/no bias", "F.linear(self, mat2)", "mm", {"self": "float32 2x2x3", "mat2": W}, f"{LINEAR}, {MATMUL}"),
    (
        "einsum",
        "torch.einsum('ij,jk->ik', self, mat2)",
        "bmm",
        {"self": X, "mat2": "float32 3x4"},
        "Linear.cpp: sumproduct_pair",
    ),
    (
        "layer_norm",
        "F.layer_norm(input, [3], weight, bias)",
        "_native_layer_norm",
        {"input": X, "weight": "float32 3", "bias": "float32 3"},
        "aten/src/ATen/native/layer_norm.cpp: layer_norm_symint",
    ),
    (
        "rms_norm",
        "F.rms_norm(input, [3], weight, 1e-6)",
        "__fused_rms_norm",
        {"input": X, "weight": "float32 3"},
        "aten/src/ATen/native/layer_norm.cpp: rms_norm_symint",
    ),
    (
        "group_norm",
        "F.group_norm(input, 2, weight, bias)",
        "_native_group_norm",
        {"input": "float32 2x4x3", "weight": B, "bias": B},
        "aten/src/ATen/native/group_norm.cpp: group_norm",
    ),
    (
        "nll_loss",
        "F.nll_loss(self, target)",
        "nll_loss_forward",
        {"self": X, "target": "int64 2"},
        "aten/src/ATen/native/LossNLL.cpp: nll_loss_nd_symint",
    ),
    (
        "cross_entropy",
        "F.cross_entropy(self, target)",
        "nll_loss_forward",
        {"self": X, "target": "int64 2"},
        "aten/src/ATen/native/LossNLL.cpp: cross_entropy_loss_symint",
    ),
    (
        "cross_entropy/weight",
        "F.cross_entropy(self, target, weight)",
        "nll_loss_forward",
        {"self": X, "target": "int64 2", "weight": "float32 3 positive"},
        "aten/src/ATen/native/LossNLL.cpp: cross_entropy_loss_symint",
    ),
]


def vector_products() -> Iterator[Case]:
    """`mv` makes its result beside the vector and calls `addmv_` on it."""
    for code in ("torch.mv(self, vec)", "self @ vec"):
        for matrix, vector in placements(2):
            yield Case(
                f"{code.replace('torch.', '')}/{matrix}+{vector}",
                {"self": f"{matrix} {X}", "vec": f"{vector} float32 3"},
                code,
                gives(f"{matrix} float32")
                if matrix == vector
                else checked("mat", matrix, vector, "wrapper_CUDA_addmv_"),
                f"aten/src/ATen/native/Blas.cpp: mv; {GENERATED}",
            )


def missing(kernel: str, dtype: str) -> Raises:
    return Raises("NotImplementedError", f"\"{kernel}\" not implemented for '{dtype}'")


DTYPES: list[tuple[str, dict[str, str], str, Outcome, str, bool]] = [
    # The CPU multiplies integers.
    *[
        (f"mm of {dtype}", {"a": f"{CARD} {dtype} 2x2"}, "a @ a", missing("addmm_cuda", name), BLAS, alone)
        for dtype, name, alone in (("int64", "Long", True), ("int32", "Int", True), ("bool", "Bool", False))
    ],
    ("bmm of int64", {"a": f"{CARD} int64 2x2x2"}, "a @ a", missing("baddbmm_cuda", "Long"), BLAS, True),
    (
        "mv of int64",
        {"a": f"{CARD} int64 2x2", "b": f"{CARD} int64 2"},
        "a @ b",
        missing("addmv_impl_cuda", "Long"),
        BLAS,
        True,
    ),
    (
        "mm of float32 and float16",
        {"a": f"{CARD} float32 2x2", "b": f"{CARD} float16 2x2"},
        "a @ b",
        runtime("expected mat1 and mat2 to have the same dtype, but got: float != c10::Half"),
        f"{BLAS}: addmm_out_cuda_impl",
        False,
    ),
    (
        "mm of bfloat16 and float32",
        {"a": f"{CARD} bfloat16 2x2", "b": f"{CARD} float32 2x2"},
        "F.linear(a, b)",
        runtime("expected mat1 and mat2 to have the same dtype, but got: c10::BFloat16 != float"),
        f"{BLAS}: addmm_out_cuda_impl",
        False,
    ),
    (
        "linear of float16 and float32",
        {"a": f"{CARD} float16 2x3", "w": f"{CARD} {W}", "b": f"{CARD} {B}"},
        "F.linear(a, w, b)",
        runtime("mat1 and mat2 must have the same dtype, but got Half and Float"),
        META,
        False,
    ),
    (
        "addmm of a float16 bias",
        {"b": f"{CARD} float16 4", "a": f"{CARD} {X}", "w": f"{CARD} {W}"},
        "F.linear(a, w, b)",
        runtime("self and mat2 must have the same dtype, but got Half and Float"),
        META,
        False,
    ),
    ("mm of bfloat16", {"a": f"{OTHER} bfloat16 2x2"}, "a @ a", gives("cuda:1 bfloat16"), KERNEL, True),
    ("mm of float64", {"a": f"{CARD} float64 2x2"}, "a @ a", gives("cuda:0 float64"), KERNEL, True),
    (
        # The devices are looked at before the shapes.
        "mm/devices before shapes",
        {"a": f"{CARD} float32 2x3", "b": f"{CPU} float32 2x3"},
        "a @ b",
        checked("mat2", CPU, CARD, "wrapper_CUDA_mm"),
        GENERATED,
        False,
    ),
    (
        "mm/shapes",
        {"a": f"{CARD} float32 2x3", "b": f"{CARD} float32 2x3"},
        "a @ b",
        runtime("mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)"),
        "aten/src/ATen/native/LinearAlgebra.cpp: TORCH_META_FUNC(mm)",
        False,
    ),
    (
        "mm out/cpu",
        {"a": f"{CARD} float32 2x2", "o": f"{CPU} float32 2x2"},
        "torch.mm(a, a, out=o)",
        checked("self", CARD, CPU, "wrapper_CUDA_mm_out_out"),
        GENERATED,
        True,
    ),
    (
        "mm out/card",
        {"a": f"{CARD} float32 2x2", "o": f"{CARD} float32 2x2"},
        "torch.mm(a, a, out=o)",
        gives("cuda:0 float32"),
        KERNEL,
        True,
    ),
]


def cases() -> Iterator[Case]:
    for name, code, method, operands, source in FAMILIES:
        yield from family(name, code, method, operands, "float32", source)
    yield from vector_products()
    for name, given, code, expected, source, alone in DTYPES:
        yield Case(name, given, code, expected, source, alone=alone)
