"""Calls that language models and their libraries make and that the samples of the databases lack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .samples import Sample

OPERATOR: Final = "extra"
"""What stands for the name of an operator in their rows."""

_QKV = {"a": "float32 2x4x3x8", "b": "float32 2x4x5x8", "c": "float32 2x4x5x8"}
_QKV3 = {"a": "float32 4x3x8", "b": "float32 4x5x8", "c": "float32 4x5x8"}

CALLS: dict[str, dict[str, str]] = {
    # Attention, of three and of four dimensions, with masks of numbers and of truth values, and grouped.
    "F.scaled_dot_product_attention(a, b, c)": _QKV,
    "F.scaled_dot_product_attention(a, b, c, is_causal=True)": _QKV3,
    "F.scaled_dot_product_attention(a, b, c, attn_mask=d)": {**_QKV, "d": "float32 2x1x3x5"},
    "F.scaled_dot_product_attention(a, b, c, attn_mask=d, scale=0.5)": {**_QKV3, "d": "bool 4x3x5"},
    "F.scaled_dot_product_attention(a, b, c, attn_mask=d, dropout_p=0.0)": {
        "a": "float32 2x4x3x6", "b": "float32 2x4x5x6", "c": "float32 2x4x5x6", "d": "bool 2x1x3x5",
    },
    "F.scaled_dot_product_attention(a, b, c, enable_gqa=True)": {
        "a": "float32 2x4x3x8", "b": "float32 2x2x5x8", "c": "float32 2x2x5x8",
    },
    "torch.softmax(a @ b.transpose(-1, -2) * 0.5 + d, dim=-1, dtype=torch.float32).to(c.dtype) @ c": {
        **_QKV, "d": "float32 2x1x3x5",
    },
    # Convolutions of state-space models, and others whose backend depends on sizes; of 16-bit numbers on the CPU it
    # depends on the processor too.
    "F.conv1d(a, b, c, padding=3, groups=6)": {"a": "float32 2x6x5", "b": "float32 6x1x4", "c": "float32 6"},
    "F.conv1d(a, b, groups=6)": {"a": "float32 1x6x5", "b": "float32 6x1x4"},
    "F.conv1d(a, b, c, padding=3, groups=32)": {"a": "float32 2x32x5", "b": "float32 32x1x4", "c": "float32 32"},
    "F.conv1d(a, b, c)": {"a": "float32 1x3x6", "b": "float32 4x3x2", "c": "float32 4"},
    "F.conv1d(a, b, c, padding=1)": {"a": "float32 4x3x6", "b": "float32 4x3x3", "c": "float32 4"},
    "F.conv1d(a, b, c, dilation=2)": {"a": "float32 1x3x9", "b": "float32 4x3x3", "c": "float32 4"},
    "F.conv2d(a, b)": {"a": "float32 1x3x6x6", "b": "float32 4x3x2x2"},
    "F.conv2d(a, b, c, stride=2)": {"a": "float32 2x3x8x8", "b": "float32 4x3x4x4", "c": "float32 4"},
    "F.conv2d(a, b, c, groups=3)": {"a": "float32 1x3x6x6", "b": "float32 3x1x3x3", "c": "float32 3"},
    # Codes of quantized weights: integers with numbers.
    "torch.matmul(a, b)": {"a": "uint8 4x3", "b": "float32 3x5"},
    "torch.matmul(a, b.t())": {"a": "float32 2x4x3", "b": "uint8 5x3"},
    "F.linear(a, b)": {"a": "float32 2x3", "b": "uint8 5x3"},
    "F.linear(a, b, c)": {"a": "float16 2x3", "b": "int8 5x3", "c": "float16 5"},
    "torch.bmm(a, b)": {"a": "uint8 2x4x3", "b": "float32 2x3x5"},
    "torch.matmul(a, b)  # a row": {"a": "uint8 4x1", "b": "float32 1x6x5"},
    "a @ b": {"a": "float32 2x3", "b": "float16 3x4"},
    "torch.einsum('bij,bjk->bik', a, b)": {"a": "float32 2x3x4", "b": "float32 2x4x5"},
    "torch.einsum('ij,j->i', a, b)": {"a": "float32 3x4", "b": "float32 4"},
    # Frequencies with positions: columns with rows, which a card multiplies whatever their dtypes.
    "torch.bmm(a, b)  # columns with rows": {"a": "float32 2x4x1", "b": "float32 2x1x3"},
    "torch.matmul(a, b)  # columns with rows": {"a": "float32 1x4x1", "b": "float32 1x1x5"},
    "torch.matmul(a, b)  # positions": {"a": "float32 1x4x1", "b": "int64 1x1x5"},
    "torch.matmul(a, b)  # a column with rows": {"a": "float32 4x1", "b": "float32 2x1x5"},
    "(a[None, :, None] @ b[:, None, :]).transpose(1, 2)": {"a": "float32 4", "b": "float32 1x5"},
    "torch.einsum('i,bj->bji', a, b)": {"a": "float32 4", "b": "float32 1x5"},
    # Products in a dtype that the call names, which only cards compute.
    "torch.mm(a, b, out_dtype=torch.float32)": {"a": "float16 2x3", "b": "float16 3x4"},
    "torch.bmm(a, b, torch.float32)": {"a": "bfloat16 2x2x3", "b": "bfloat16 2x3x4"},
    "torch.addmm(a, b, c, out_dtype=torch.float32)": {"a": "float16 4", "b": "float16 2x3", "c": "float16 3x4"},
    "torch.baddbmm(a, b, c, out_dtype=torch.float32)": {
        "a": "float16 2x2x4", "b": "float16 2x2x3", "c": "float16 2x3x4",
    },
    # Numbers that stand first, and scales.
    "1 - a": {"a": "float32 3"},
    "a - b": {"a": "float32 0d", "b": "float32 3"},
    "torch.rsub(a, b)": {"a": "float32 0d", "b": "float32 3"},
    "torch.lerp(a, b, c)": {"a": "float32 3", "b": "float32 3", "c": "float32 0d"},
    "a * torch.rsqrt(a.pow(2).mean(-1, keepdim=True) + 1e-6) * b": {"a": "float32 2x3x4", "b": "float32 4"},
    "torch.logical_and(a, b)": {"a": "bool 0d", "b": "bool 3"},
    "torch.where(a, b, c)": {"a": "bool 2x3", "b": "float32 2x3", "c": "float32 0d"},
    "a.masked_fill(b, float('-inf'))": {"a": "float32 2x3", "b": "bool 2x3"},
    "a.masked_fill(b, c)": {"a": "float32 2x3", "b": "bool 2x3", "c": "float32 0d"},
    "a.masked_fill_(b, 0.0)": {"a": "float32 2x3", "b": "bool 2x3"},
    # Positions, caches, experts, sampling.
    "torch.cat([a, b], dim=-2)": {"a": "float32 2x3x4", "b": "float32 2x1x4"},
    "torch.stack([a, b])": {"a": "float32 3", "b": "float32 3"},
    "a.index_copy_(1, b, c)": {"a": "float32 2x6x3", "b": "int64 2 distinct", "c": "float32 2x2x3"},
    "a.index_add_(0, b, c)": {"a": "float32 4x3", "b": "int64 2 index", "c": "float32 2x3"},
    "a.scatter(1, b, c)": {"a": "float32 2x4", "b": "int64 2x2 index", "c": "float32 2x2"},
    "a.scatter_(1, b, 1.0)": {"a": "float32 2x4", "b": "int64 2x2 index"},
    "a.gather(1, b)": {"a": "float32 2x4", "b": "int64 2x2 index"},
    "a[b]": {"a": "float32 4x3", "b": "int64 2 index"},
    "a[b, c]": {"a": "float32 4x3", "b": "int64 2 index", "c": "int64 2 index"},
    "a[:, b]": {"a": "float32 4x3", "b": "int64 2 index"},
    "a.index_put_((b,), c)": {"a": "float32 4x3", "b": "int64 2 index", "c": "float32 2x3"},
    "a.index_select(0, b)": {"a": "float32 4x3", "b": "int64 2 index"},
    "F.embedding(b, a)": {"a": "float32 4x3", "b": "int64 2x2 index"},
    "F.embedding(b, a, padding_idx=0)": {"a": "float32 4x3", "b": "int64 2x2 index"},
    "F.one_hot(a, 4)": {"a": "int64 3 index"},
    "torch.topk(a, 2)": {"a": "float32 2x4"},
    "torch.multinomial(a, 1)": {"a": "float32 2x4 positive"},
    "torch.isin(a, b)": {"a": "int64 3", "b": "int64 2"},
    "torch.bincount(a)": {"a": "int64 4 index"},
    "torch.searchsorted(a, b)": {"a": "float32 4 sorted", "b": "float32 2"},
    "torch.repeat_interleave(a, b, dim=0)": {"a": "float32 2x3", "b": "int64 2 nonzero"},
    "torch.tensor_split(a, b)": {"a": "float32 6", "b": "int64 2 sorted"},
    "torch.outer(a, b)": {"a": "float32 3", "b": "float32 4"},
    "torch.addmm(a, b, c)": {"a": "float32 4", "b": "float32 2x3", "c": "float32 3x4"},
    "torch.baddbmm(a, b, c)": {"a": "float32 2x2x4", "b": "float32 2x2x3", "c": "float32 2x3x4"},
    # Norms in the dtypes that a model may have them in.
    "F.layer_norm(a, (4,), b, c)": {"a": "float32 2x4", "b": "float32 4", "c": "float32 4"},
    "F.rms_norm(a, (4,), b)": {"a": "float32 2x4", "b": "float32 4"},
    "F.group_norm(a, 2, b, c)": {"a": "float32 2x4x3", "b": "float32 4", "c": "float32 4"},
    "F.batch_norm(a, b, c, d, e)": {
        "a": "float32 2x3x4", "b": "float32 3", "c": "float32 3 positive", "d": "float32 3", "e": "float32 3",
    },
    "F.batch_norm(a, b, c, d, e, training=True)": {
        "a": "float32 2x3x4", "b": "float32 3", "c": "float32 3 positive", "d": "float32 3", "e": "float32 3",
    },
    "F.cross_entropy(a, b)": {"a": "float32 3x4", "b": "int64 3 index"},
    "F.mse_loss(a, b)": {"a": "float32 3", "b": "float32 3"},
    "F.smooth_l1_loss(a, b)": {"a": "float32 3", "b": "float32 3"},
    "F.kl_div(a, b)": {"a": "float32 3 positive", "b": "float32 3 positive"},
    "F.gelu(a) * b": {"a": "float32 2x3", "b": "float32 2x3"},
    "F.prelu(a, b)": {"a": "float32 2x3", "b": "float32 3"},
    "F.bilinear(a, b, c)": {"a": "float32 2x3", "b": "float32 2x4", "c": "float32 5x3x4"},
    # Under autocast.
    "with torch.autocast('cuda', dtype=torch.float16):\n    z = F.linear(a, b)\nz": {
        "a": "float32 2x3", "b": "float32 4x3",
    },
    "with torch.autocast('cuda', dtype=torch.bfloat16):\n    z = torch.softmax(a @ b, -1)\nz": {
        "a": "float32 2x3", "b": "float32 3x4",
    },
    "with torch.autocast('cuda', dtype=torch.bfloat16):\n    z = F.layer_norm(F.linear(a, b), (4,), c)\nz": {
        "a": "float32 2x3", "b": "float32 4x3", "c": "float32 4",
    },
    # In inference mode, where nothing is taken apart before its operands are looked at.
    "with torch.inference_mode():\n    z = F.linear(a[:, -1:], b)\nz": {"a": "float32 2x5x3", "b": "float32 4x3 grad"},
    "with torch.inference_mode():\n    z = F.linear(a, b, c)\nz": {
        "a": "float32 2x5x3", "b": "float32 4x3 grad", "c": "float32 4 grad",
    },
    "with torch.inference_mode():\n    z = torch.matmul(a[:, -1:], b)\nz": {
        "a": "float32 2x5x3", "b": "float32 3x4 grad",
    },
    "with torch.inference_mode():\n    z = torch.matmul(a.transpose(0, 1), b)\nz": {
        "a": "float32 2x5x3", "b": "float32 3",
    },
    "with torch.inference_mode():\n    z = torch.einsum('bsi,oi->bso', a, b)\nz": {
        "a": "float32 2x5x3", "b": "float32 4x3 grad",
    },
    "with torch.inference_mode():\n    z = F.scaled_dot_product_attention(a, b, c)\nz": _QKV,
    "with torch.inference_mode():\n    z = F.embedding(b, a)\nz": {
        "a": "float32 4x3 grad", "b": "int64 2x2 index",
    },
    "with torch.inference_mode():\n    z = F.rms_norm(a, (4,), b)\nz": {"a": "float32 2x4", "b": "float32 4 grad"},
    "with torch.inference_mode():\n    z = F.layer_norm(a, (4,), b, c)\nz": {
        "a": "float32 2x4", "b": "float32 4 grad", "c": "float32 4 grad",
    },
    "with torch.inference_mode():\n    z = F.conv1d(a, b, c, padding=3, groups=6)\nz": {
        "a": "float32 2x6x5", "b": "float32 6x1x4 grad", "c": "float32 6 grad",
    },
    "with torch.inference_mode():\n    z = torch.tensordot(a, b, dims=1)\nz": {
        "a": "float32 2x5x3", "b": "float32 3x4 grad",
    },
    "with torch.no_grad():\n    z = F.linear(a[:, -1:], b)\nz": {"a": "float32 2x5x3", "b": "float32 4x3 grad"},
    "with torch.no_grad():\n    z = torch.matmul(a[:, -1:], b.detach())\nz": {
        "a": "float32 2x5x3", "b": "float32 3x4 grad",
    },
    # Backward passes.
    "F.linear(a, b).sum().backward()\n(a.grad, b.grad)": {"a": "float32 2x3 grad", "b": "float32 4x3 grad"},
    "(a * b.to(a.device)).sum().backward()\n(a.grad, b.grad)": {"a": "float32 3 grad", "b": "float32 3 grad"},
    "torch.autograd.grad(F.embedding(b, a).sum(), a)": {"a": "float32 4x3 grad", "b": "int64 2 index"},
    # Random numbers.
    "torch.rand(3, device=a.device, generator=torch.Generator(b.device))": {"a": "float32 1", "b": "float32 1"},
    "torch.randn_like(a)": {"a": "float32 3"},
    "a.uniform_(generator=torch.Generator('cuda:0'))": {"a": "float32 3"},
    "torch.multinomial(a, 1, generator=torch.Generator(b.device))": {"a": "float32 2x4 positive", "b": "float32 1"},
    # Optimizers and norms of gradients.
    "torch._foreach_add([a, b], [b, a])": {"a": "float32 3", "b": "float32 3"},
    "torch._foreach_mul_([a, b], 2.0)": {"a": "float32 3", "b": "float32 3"},
    "nn.utils.clip_grad_norm_([a], 1.0)": {"a": "float32 3 grad"},
}  # fmt: skip
"""Code -> its operands."""


def samples() -> Iterator[Sample]:
    """The calls as samples, each asked about in every way."""
    for code, operands in CALLS.items():
        yield Sample(OPERATOR, code, dict(operands), first=True)
