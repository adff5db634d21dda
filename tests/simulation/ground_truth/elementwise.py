"""Elementwise functions of one and two operands: mostly TensorIterator, which forgives one 0-dim CPU operand."""

from __future__ import annotations

from collections.abc import Iterator

from .declare import (
    CARD,
    CPU,
    ITERATOR,
    KERNEL,
    OTHER,
    PROMOTION,
    Case,
    Outcome,
    gives,
    runtime,
    same,
)

# Device and shape of both operands, and the device of the result or the error.
PLACES: list[tuple[str, str, str, str, str | Outcome]] = [
    (CARD, "2x3", CARD, "2x3", CARD),
    (CARD, "2x3", CPU, "2x3", same(CARD, CPU)),
    (CPU, "2x3", CARD, "2x3", same(CARD, CPU)),
    (CARD, "2x3", CPU, "0d", CARD),
    (CARD, "0d", CPU, "2x3", same(CARD, CPU)),
    (OTHER, "2x3", CARD, "2x3", same(OTHER, CARD)),
    # From here on only for the functions written in full.
    (CARD, "2x3", OTHER, "2x3", same(CARD, OTHER)),
    (OTHER, "2x3", OTHER, "2x3", OTHER),
    (CPU, "0d", CARD, "2x3", CARD),
    (CPU, "2x3", CARD, "0d", same(CARD, CPU)),
    (CARD, "0d", CPU, "0d", CARD),
    (CPU, "0d", OTHER, "0d", OTHER),
    (CARD, "2x3", OTHER, "0d", same(CARD, OTHER)),
    (CARD, "2x3", CPU, "1", same(CARD, CPU)),
]
FULL = 14
SHORT = 6

BINARY = [
    ("add", "a + b", "float32", "float32", FULL),
    ("mul", "a * b", "float32", "float32", FULL),
    ("div", "a / b", "float32", "float32", FULL),
    ("eq", "a == b", "float32", "bool", FULL),
    ("bitwise_and", "a & b", "int64", "int64", FULL),
    ("sub", "a - b", "float32", "float32", SHORT),
    ("pow", "a ** b", "float32", "float32", SHORT),
    ("maximum", "torch.maximum(a, b)", "float32", "float32", SHORT),
    ("minimum", "torch.minimum(a, b)", "float32", "float32", SHORT),
    ("fmod", "torch.fmod(a, b)", "float32", "float32", SHORT),
    ("remainder", "a % b", "float32", "float32", SHORT),
    ("atan2", "torch.atan2(a, b)", "float32", "float32", SHORT),
    ("floor_divide", "a // b", "float32", "float32", SHORT),
    ("lt", "a < b", "float32", "bool", SHORT),
    ("ge", "a >= b", "bfloat16", "bool", SHORT),
    ("ne", "a != b", "int64", "bool", SHORT),
    ("logical_and", "torch.logical_and(a, b)", "bool", "bool", SHORT),
    ("bitwise_or", "a | b", "bool", "bool", SHORT),
]


def binary() -> Iterator[Case]:
    for name, code, dtype, result, count in BINARY:
        kind = " positive" if dtype in {"float32", "bfloat16"} else ""
        for device, shape, other, other_shape, seen in PLACES[:count]:
            yield Case(
                f"{name}/{device}[{shape}]+{other}[{other_shape}]",
                {"a": f"{device} {dtype} {shape}{kind}", "b": f"{other} {dtype} {other_shape}{kind}"},
                code,
                gives(f"{seen} {result}") if isinstance(seen, str) else seen,
                ITERATOR,
            )


PROMOTED = [
    ("float16", "2x3", "float32", "2x3", CARD, "float32"),
    ("bfloat16", "2x3", "float16", "2x3", CARD, "float32"),
    ("float32", "2x3", "float64", "2x3", CARD, "float64"),
    ("int64", "2x3", "float32", "2x3", CARD, "float32"),
    ("int64", "2x3", "bfloat16", "2x3", CARD, "bfloat16"),
    ("int32", "2x3", "int64", "2x3", CARD, "int64"),
    ("bool", "2x3", "int64", "2x3", CARD, "int64"),
    ("float16", "2x3", "float32", "0d", CARD, "float16"),
    ("bfloat16", "2x3", "float32", "0d", CPU, "bfloat16"),
    ("float16", "2x3", "float64", "0d", CPU, "float16"),
    ("int64", "2x3", "float32", "0d", CPU, "float32"),
    ("int32", "2x3", "int64", "0d", CPU, "int32"),
    ("bool", "2x3", "int64", "0d", CPU, "int64"),
    ("float16", "0d", "float32", "0d", CPU, "float32"),
]

SCALARS = [
    ("float16", "a + 1.5", "float16"),
    ("int64", "a + 1.5", "float32"),
    ("int64", "2 * a", "int64"),
    ("bool", "a + 1", "int64"),
    ("bfloat16", "1.0 - a", "bfloat16"),
    ("int64", "a / 2", "float32"),
    ("float32", "a > 0", "bool"),
]


def promotion() -> Iterator[Case]:
    for dtype, shape, other, other_shape, device, result in PROMOTED:
        yield Case(
            f"promotion/{dtype}[{shape}]+{device}:{other}[{other_shape}]",
            {"a": f"{CARD} {dtype} {shape}", "b": f"{device} {other} {other_shape}"},
            "a + b",
            gives(f"{CARD} {result}"),
            PROMOTION,
        )
    for dtype, code, result in SCALARS:
        yield Case(
            f"promotion/{dtype}: {code}", {"a": f"{CARD} {dtype} 2x3"}, code, gives(f"{CARD} {result}"), PROMOTION
        )


CAST = runtime("result type Float can't be cast to the desired output type Long")
CARD_2X3, CPU_2X3, CPU_0D = f"{CARD} float32 2x3", f"{CPU} float32 2x3", f"{CPU} float32 0d"

WRITTEN: list[tuple[str, dict[str, str], str, Outcome, bool]] = [
    ("add_/card+card", {"a": CARD_2X3, "b": CARD_2X3}, "a.add_(b)", gives("cuda:0 float32"), True),
    ("add_/card+cpu", {"a": CARD_2X3, "b": CPU_2X3}, "a.add_(b)", same(CARD, CPU), True),
    ("add_/cpu+card", {"a": CPU_2X3, "b": CARD_2X3}, "a.add_(b)", same(CARD, CPU), True),
    ("add_/cpu+card[0d]", {"a": CPU_2X3, "b": f"{CARD} float32 0d"}, "a.add_(b)", same(CARD, CPU), True),
    ("add_/cpu[0d]+card[0d]", {"a": CPU_0D, "b": f"{CARD} float32 0d"}, "a.add_(b)", same(CARD, CPU), True),
    ("add_/card+cpu[0d]", {"a": CARD_2X3, "b": CPU_0D}, "a.add_(b)", gives("cuda:0 float32"), True),
    ("add_/other+card", {"a": f"{OTHER} float32 2x3", "b": CARD_2X3}, "a.add_(b)", same(OTHER, CARD), True),
    ("add_/float16+float32", {"a": f"{CARD} float16 2x3", "b": CARD_2X3}, "a.add_(b)", gives("cuda:0 float16"), True),
    ("add_/int64+float32", {"a": f"{CARD} int64 2x3", "b": CARD_2X3}, "a.add_(b)", CAST, False),
    ("add_/int64+cpu float32[0d]", {"a": f"{CARD} int64 2x3", "b": CPU_0D}, "a.add_(b)", CAST, False),
    ("div_/int64+int64", {"a": f"{CARD} int64 2x3", "b": f"{CARD} int64 2x3 nonzero"}, "a.div_(b)", CAST, False),
    ("iadd/scalar", {"a": CARD_2X3}, "a += 1\na", gives("cuda:0 float32"), True),
    ("imul/cpu", {"a": CARD_2X3, "b": CPU_2X3}, "a *= b\na", same(CARD, CPU), True),
    ("add out/cpu", {"a": CARD_2X3, "b": CARD_2X3, "o": CPU_2X3}, "torch.add(a, b, out=o)", same(CARD, CPU), True),
    (
        "add out/other",
        {"a": CARD_2X3, "b": CARD_2X3, "o": f"{OTHER} float32 2x3"},
        "torch.add(a, b, out=o)",
        same(OTHER, CARD),
        True,
    ),
    (
        "add out/card",
        {"a": CARD_2X3, "b": CPU_0D, "o": CARD_2X3},
        "torch.add(a, b, out=o)",
        gives("cuda:0 float32"),
        True,
    ),
    (
        "add out/card of cpu",
        {"a": CPU_2X3, "b": CPU_2X3, "o": CARD_2X3},
        "torch.add(a, b, out=o)",
        same(CARD, CPU),
        True,
    ),
    ("exp out/cpu", {"a": CARD_2X3, "o": CPU_2X3}, "torch.exp(a, out=o)", same(CARD, CPU), True),
    ("exp out/card of cpu", {"a": CPU_2X3, "o": CARD_2X3}, "torch.exp(a, out=o)", same(CARD, CPU), True),
    # The shapes are looked at before the devices.
    (
        "shapes before devices",
        {"a": CARD_2X3, "b": f"{CPU} float32 4"},
        "a + b",
        runtime("The size of tensor a (3) must match the size of tensor b (4) at non-singleton dimension 1"),
        False,
    ),
]

SINGLE = [
    *[
        (name, "float32", f"torch.{name}(a)", ["float32"])
        for name in ("exp", "neg", "abs", "tanh", "floor", "sign", "cos")
    ],
    *[(name, "bfloat16", f"F.{name}(a)", ["bfloat16"]) for name in ("relu", "gelu", "silu", "softplus")],
    ("sigmoid of int64", "int64", "torch.sigmoid(a)", ["float32"]),
    ("isnan", "float16", "torch.isnan(a)", ["bool"]),
    ("logical_not", "int64", "torch.logical_not(a)", ["bool"]),
    ("bitwise_not", "int64", "~a", ["int64"]),
    ("sum", "float16", "a.sum()", ["float16"]),
    ("sum of int32", "int32", "a.sum()", ["int64"]),
    ("mean", "float32", "a.mean(-1)", ["float32"]),
    ("prod of bool", "bool", "a.prod()", ["int64"]),
    ("max", "float32", "a.max()", ["float32"]),
    ("max of a dim", "float32", "a.max(dim=1)", ["float32", "int64"]),
    ("argmax", "float32", "a.argmax(-1)", ["int64"]),
    ("any", "float32", "a.any()", ["bool"]),
    ("norm", "float32", "a.norm()", ["float32"]),
    ("var", "float64", "a.var()", ["float64"]),
    ("cumsum of bool", "bool", "a.cumsum(0)", ["int64"]),
    ("softmax", "float16", "a.softmax(-1)", ["float16"]),
    ("softmax in float32", "float16", "F.softmax(a, -1, dtype=torch.float32)", ["float32"]),
    ("log_softmax", "float32", "a.log_softmax(-1)", ["float32"]),
    ("logsumexp", "float32", "a.logsumexp(-1)", ["float32"]),
    ("topk", "float32", "a.topk(2)", ["float32", "int64"]),
    ("sort", "float32", "a.sort(descending=True)", ["float32", "int64"]),
    ("argsort", "float32", "a.argsort()", ["int64"]),
    ("nonzero", "int64", "a.nonzero()", ["int64"]),
    ("unique", "int64", "a.unique(return_counts=True)", ["int64", "int64"]),
    ("median", "float32", "a.median(-1)", ["float32", "int64"]),
    ("tril", "float32", "a.tril()", ["float32"]),
    ("roll", "float32", "a.roll(1)", ["float32"]),
    ("flip", "float32", "a.flip(0)", ["float32"]),
    ("one_hot", "int64", "F.one_hot(a, 3)", ["int64"]),
    ("pad", "float32", "F.pad(a, (1, 1))", ["float32"]),
    ("repeat_interleave by number", "float32", "a.repeat_interleave(2, dim=0)", ["float32"]),
    ("bincount", "int64", "a.flatten().bincount()", ["int64"]),
]


def cases() -> Iterator[Case]:
    yield from binary()
    yield from promotion()
    for name, operands, code, expected, alone in WRITTEN:
        yield Case(name, operands, code, expected, ITERATOR, alone=alone)
    for number, (name, dtype, code, results) in enumerate(SINGLE):
        # By turns, so that one card can answer half of them.
        device = (CARD, OTHER)[number % 2]
        expected = gives(*[f"{device} {result}" for result in results])
        yield Case(f"single/{name}", {"a": f"{device} {dtype} 2x3"}, code, expected, KERNEL)
