"""Attention, convolution, and autocast, whose lists are the card's own."""

from __future__ import annotations

from collections.abc import Iterator

from .declare import CARD, CPU, OTHER, Case, Outcome, Raises, checked, gives, placements, runtime

ATTENTION = "aten/src/ATen/native/transformers/sdp_utils_cpp.h: validate_sdpa_input"
CONVOLUTION = "aten/src/ATen/native/Convolution.cpp: check_input_same_type_as_parameters"
AUTOCAST = "docs: Automatic Mixed Precision, CUDA op reference; aten/src/ATen/autocast_mode.h"

Q = "float32 1x2x3x4"
SAME = "should be the same"


def mixed_devices(query: str, key: str, value: str) -> Raises:
    return runtime(
        "Expected query, key, and value to have the same device type, but got query.device: "
        f"{query} key.device: {key} and value.device: {value} instead."
    )


def attention() -> Iterator[Case]:
    code = "F.scaled_dot_product_attention(q, k, v)"
    for row in placements(3):
        yield Case(
            f"attention/{'+'.join(row)}",
            {name: f"{device} {Q}" for name, device in zip("qkv", row, strict=True)},
            code,
            mixed_devices(*row) if len(set(row)) > 1 else gives(f"{row[0]} float32"),
            ATTENTION,
        )
    yield Case(
        "attention/bfloat16",
        {"q": f"{CARD} bfloat16 1x2x3x8"},
        "F.scaled_dot_product_attention(q, q, q, is_causal=True)",
        gives("cuda:0 bfloat16"),
        ATTENTION,
    )
    yield Case(
        "attention/dtypes before devices",
        {"q": f"{CARD} {Q}", "k": f"{CPU} float16 1x2x3x4"},
        "F.scaled_dot_product_attention(q, k, k)",
        runtime(
            "Expected query, key, and value to have the same dtype, but got query.dtype: float "
            "key.dtype: c10::Half and value.dtype: c10::Half instead."
        ),
        ATTENTION,
        alone=False,
    )
    yield Case(
        "attention/mask on the cpu",
        {"q": f"{CARD} {Q}", "m": f"{CPU} bool 3x3"},
        "F.scaled_dot_product_attention(q, q, q, attn_mask=m)",
        None,
        "open: which kernel speaks depends on the card",
    )


def convolution() -> Iterator[Case]:
    cuda, cpu = "torch.cuda.FloatTensor", "torch.FloatTensor"
    rows: list[tuple[str, str, str, str, str, Outcome]] = [
        ("card", "float32", CARD, CARD, CARD, gives("cuda:0 float32")),
        ("other", "float32", OTHER, OTHER, OTHER, gives("cuda:1 float32")),
        (
            "weight on the cpu",
            "float32",
            CARD,
            CPU,
            CARD,
            runtime(f"Input type ({cuda}) and weight type ({cpu}) {SAME}"),
        ),
        ("bias on the cpu", "float32", CARD, CARD, CPU, runtime(f"Input type ({cuda}) and bias type ({cpu}) {SAME}")),
        (
            "input on the cpu",
            "float32",
            CPU,
            CARD,
            CARD,
            runtime(
                f"Input type ({cpu}) and weight type ({cuda}) {SAME} or input should be a MKLDNN tensor and weight "
                "is a dense tensor"
            ),
        ),
        (
            "weight on the other",
            "float32",
            CARD,
            OTHER,
            CARD,
            checked("weight", OTHER, CARD, "wrapper_CUDA__cudnn_convolution"),
        ),
        # The dtypes of input and bias are compared first, on every device.
        ("float16", "float16", CARD, CARD, CARD, runtime(f"Input type (c10::Half) and bias type (float) {SAME}")),
    ]
    for name, dtype, device, weight, bias, expected in rows:
        yield Case(
            f"conv2d/{name}",
            {"x": f"{device} {dtype} 2x3x8x8", "w": f"{weight} float32 4x3x3x3", "b": f"{bias} float32 4"},
            "F.conv2d(x, w, b)",
            expected,
            CONVOLUTION,
            alone=dtype == "float32",
        )
    yield Case(
        "conv2d/float16, no bias",
        {"x": f"{CARD} float16 2x3x8x8", "w": f"{CARD} float32 4x3x3x3"},
        "F.conv2d(x, w)",
        runtime(f"Input type (torch.cuda.HalfTensor) and weight type ({cuda}) {SAME}"),
        CONVOLUTION,
        alone=False,
    )
    yield Case(
        "conv1d/weight on the cpu",
        {"x": f"{CARD} float32 2x3x8", "w": f"{CPU} float32 4x3x3"},
        "F.conv1d(x, w)",
        runtime(f"Input type ({cuda}) and weight type ({cpu}) {SAME}"),
        CONVOLUTION,
    )


AUTOCASTS = [
    ("mm", "float32", "a @ a", "float16"),
    ("linear", "float32", "F.linear(a, a)", "float16"),
    ("bmm", "float32", "a[None] @ a[None]", "float16"),
    ("addmm", "float32", "torch.addmm(a, a, a)", "float16"),
    ("softmax", "float16", "a.softmax(-1)", "float32"),
    ("layer_norm", "float16", "F.layer_norm(a, [2])", "float32"),
    ("sum", "float16", "a.sum()", "float32"),
    ("exp", "float16", "a.exp()", "float32"),
    ("pow", "float16", "a.pow(2)", "float32"),
    ("cumsum", "float16", "a.cumsum(0)", "float32"),
    ("add", "float16", "a + a", "float16"),
    ("relu", "float32", "a.relu()", "float32"),
    ("addcmul", "float16", "torch.addcmul(a, a, a.float())", "float32"),
]


def autocast() -> Iterator[Case]:
    for name, dtype, call, result in AUTOCASTS:
        code = f"with torch.autocast('cuda'):\n    result = {call}\nresult"
        expected = gives(f"{CARD} {result}")
        # The CPU's autocast has other lists.
        yield Case(f"autocast/{name}", {"a": f"{CARD} {dtype} 2x2"}, code, expected, AUTOCAST, alone=False)
    code = "with torch.autocast('cuda', dtype=torch.bfloat16):\n    result = a @ a\nresult"
    yield Case("autocast/bfloat16", {"a": f"{CARD} float32 2x2"}, code, gives("cuda:0 bfloat16"), AUTOCAST, alone=False)
    yield Case("autocast/cpu tensors", {"a": f"{CPU} float32 2x2"}, code, gives("cpu float32"), AUTOCAST, alone=False)
    code = "with torch.autocast('cuda', enabled=False):\n    result = a @ a\nresult"
    yield Case("autocast/off", {"a": f"{CARD} float32 2x2"}, code, gives("cuda:0 float32"), AUTOCAST, alone=False)


def cases() -> Iterator[Case]:
    yield from attention()
    yield from convolution()
    yield from autocast()
