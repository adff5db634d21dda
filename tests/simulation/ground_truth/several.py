"""Functions of several operands: where, clamp, addcmul, losses, lists of tensors."""

from __future__ import annotations

from collections.abc import Iterator

from .declare import CARD, CPU, ITERATOR, KERNEL, OTHER, Case, Outcome, family, gives, runtime, same

WHERE = "aten/src/ATen/native/TensorCompare.cpp: where_self_out"
POINTWISE = "aten/src/ATen/native/PointwiseOps.cpp: TORCH_META_FUNC(addcmul)"
CPU_0D = f"{CPU} float32 0d"

T = "float32 2x3"
MASK = "bool 2x3"
MANY: list[tuple[str, dict[str, str], str, Outcome, str]] = [
    (
        "addcmul/card",
        {"a": f"{CARD} {T}", "b": f"{CARD} {T}", "c": f"{CARD} {T}"},
        "torch.addcmul(a, b, c)",
        gives("cuda:0 float32"),
        POINTWISE,
    ),
    (
        "addcmul/cpu",
        {"a": f"{CARD} {T}", "b": f"{CPU} {T}", "c": f"{CARD} {T}"},
        "torch.addcmul(a, b, c)",
        same(CARD, CPU),
        POINTWISE,
    ),
    (
        "addcmul/cpu[0d]",
        {"a": f"{CARD} {T}", "b": f"{CARD} {T}", "c": CPU_0D},
        "torch.addcmul(a, b, c)",
        gives("cuda:0 float32"),
        POINTWISE,
    ),
    (
        "addcmul/two cpu[0d]",
        {"a": f"{CARD} {T}", "b": CPU_0D, "c": CPU_0D},
        "torch.addcmul(a, b, c)",
        runtime("Trying to pass too many CPU scalars to non-CPU kernel!"),
        f"{POINTWISE}; {ITERATOR}",
    ),
    (
        "lerp/number",
        {"a": f"{CARD} {T}", "b": f"{CARD} {T}"},
        "torch.lerp(a, b, 0.5)",
        gives("cuda:0 float32"),
        ITERATOR,
    ),
    ("lerp/cpu end", {"a": f"{CARD} {T}", "b": f"{CPU} {T}"}, "torch.lerp(a, b, 0.5)", same(CARD, CPU), ITERATOR),
    (
        "lerp/cpu weight",
        {"a": f"{CARD} {T}", "b": f"{CARD} {T}", "c": f"{CPU} {T}"},
        "torch.lerp(a, b, c)",
        same(CARD, CPU),
        ITERATOR,
    ),
    (
        "where/card",
        {"m": f"{CARD} {MASK}", "a": f"{CARD} {T}", "b": f"{CARD} {T}"},
        "torch.where(m, a, b)",
        gives("cuda:0 float32"),
        WHERE,
    ),
    (
        "where/cpu mask",
        {"m": f"{CPU} {MASK}", "a": f"{CARD} {T}", "b": f"{CARD} {T}"},
        "torch.where(m, a, b)",
        same(CARD, CPU),
        WHERE,
    ),
    (
        "where/cpu mask, cpu, card",
        {"m": f"{CPU} {MASK}", "a": f"{CPU} {T}", "b": f"{CARD} {T}"},
        "torch.where(m, a, b)",
        same(CARD, CPU),
        WHERE,
    ),
    (
        "where/cpu operand",
        {"m": f"{CARD} {MASK}", "a": f"{CPU} {T}", "b": f"{CARD} {T}"},
        "torch.where(m, a, b)",
        same(CARD, CPU),
        WHERE,
    ),
    (
        "where/cpu[0d]",
        {"m": f"{CARD} {MASK}", "a": f"{CARD} {T}", "b": CPU_0D},
        "torch.where(m, a, b)",
        gives("cuda:0 float32"),
        WHERE,
    ),
    (
        "where/two cpu[0d]",
        {"m": f"{CARD} {MASK}", "a": CPU_0D, "b": CPU_0D},
        "torch.where(m, a, b)",
        gives("cuda:0 float32"),
        WHERE,
    ),
    (
        "where/other[0d]",
        {"m": f"{CARD} {MASK}", "a": f"{CARD} {T}", "b": f"{OTHER} float32 0d"},
        "torch.where(m, a, b)",
        gives("cuda:0 float32"),
        WHERE,
    ),
    (
        "where/cpu with card[0d]",
        {"m": f"{CPU} {MASK}", "a": f"{CPU} {T}", "b": f"{CARD} float32 0d"},
        "torch.where(m, a, b)",
        same(CARD, CPU),
        WHERE,
    ),
    (
        "where/numbers",
        {"m": f"{CARD} {MASK}", "a": f"{CARD} float16 2x3"},
        "torch.where(m, a, 1.0)",
        gives("cuda:0 float16"),
        WHERE,
    ),
    ("where/indices", {"m": f"{CARD} {MASK}"}, "torch.where(m)", gives("cuda:0 int64", "cuda:0 int64"), WHERE),
    (
        "isclose/cpu",
        {"a": f"{CARD} {T}", "b": f"{CPU} {T}"},
        "torch.isclose(a, b)",
        same(CARD, CPU),
        f"TensorCompare.cpp: isclose; {ITERATOR}",
    ),
    (
        "allclose/cpu",
        {"a": f"{CPU} {T}", "b": f"{CARD} {T}"},
        "torch.allclose(a, b)",
        same(CARD, CPU),
        f"TensorCompare.cpp: isclose; {ITERATOR}",
    ),
    (
        "allclose/card",
        {"a": f"{CARD} {T}"},
        "torch.allclose(a, a.clone())",
        gives("= True"),
        "TensorCompare.cpp: allclose",
    ),
    (
        "outer/cpu",
        {"a": f"{CARD} float32 2", "b": f"{CPU} float32 3"},
        "torch.outer(a, b)",
        same(CARD, CPU),
        f"LinearAlgebra.cpp: outer is a mul; {ITERATOR}",
    ),
    ("mse_loss/cpu", {"a": f"{CARD} {T}", "b": f"{CPU} {T}"}, "F.mse_loss(a, b)", same(CARD, CPU), ITERATOR),
    ("mse_loss/card", {"a": f"{CARD} {T}", "b": f"{CARD} {T}"}, "F.mse_loss(a, b)", gives("cuda:0 float32"), KERNEL),
    (
        "l1_loss/cpu",
        {"a": f"{CPU} {T}", "b": f"{CARD} {T}"},
        "F.l1_loss(a, b)",
        same(CARD, CPU),
        f"Loss.cpp: l1_loss is a sub; {ITERATOR}",
    ),
    (
        "smooth_l1_loss/cpu",
        {"a": f"{CARD} {T}", "b": f"{CPU} {T}"},
        "F.smooth_l1_loss(a, b)",
        same(CARD, CPU),
        ITERATOR,
    ),
    (
        "foreach_add/card",
        {"a": f"{CARD} {T}", "b": f"{CARD} {T}"},
        "torch._foreach_add([a], [b])",
        gives("cuda:0 float32"),
        KERNEL,
    ),
    (
        "foreach_add/cpu",
        {"a": f"{CARD} {T}", "b": f"{CPU} {T}"},
        "torch._foreach_add([a], [b])",
        same(CARD, CPU),
        f"ForeachBinaryOpList.cu: slow path; {ITERATOR}",
    ),
    (
        "foreach_add/pairs",
        {"a": f"{CARD} {T}", "b": f"{OTHER} {T}"},
        "torch._foreach_add([a, b], [a, b])",
        gives("cuda:0 float32", "cuda:1 float32"),
        "native_functions.yaml: foreach kernels fall back to slow path when tensor are on different devices",
    ),
    ("foreach_mul_/number", {"a": f"{OTHER} {T}"}, "torch._foreach_mul_([a], 2.0)\na", gives("cuda:1 float32"), KERNEL),
]


def cases() -> Iterator[Case]:
    for name, operands, code, expected, source in MANY:
        yield Case(name, operands, code, expected, source)
    yield from family("clamp", "torch.clamp(self, min)", "clamp_Tensor", {"self": T, "min": T}, "float32")
    yield from family(
        "clamp[0d]", "torch.clamp(self, max=max)", "clamp_Tensor", {"self": T, "max": "float32 0d"}, "float32"
    )
    yield from family("equal", "torch.equal(self, other)", "_equal", {"self": T, "other": T}, "= False")
    yield from family("huber_loss", "F.huber_loss(self, target)", "_huber_loss", {"self": T, "target": T}, "float32")
