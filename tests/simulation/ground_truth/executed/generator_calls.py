"""Calls that draw random numbers, with a generator of each device, which the samples of the databases lack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .samples import Sample

OPERATOR: Final = "generators"
"""What stands for the name of an operator in their rows."""

_GENERATOR: Final = "generator=torch.Generator({place}.device)"

_DRAWN: dict[str, dict[str, str]] = {
    "torch.bernoulli(a, {generator})": {"a": "float32 3 unit"},
    "a.bernoulli_(0.5, {generator})": {"a": "float32 3"},
    "a.bernoulli_(b, {generator})": {"a": "float32 3", "b": "float32 3 unit"},
    "torch.normal(a, b, {generator})": {"a": "float32 3", "b": "float32 3 positive"},
    "torch.normal(a, 1.0, {generator})": {"a": "float32 3"},
    "torch.normal(0.0, a, {generator})": {"a": "float32 3 positive"},
    "torch.normal(0.0, 1.0, (3,), device=a.device, {generator})": {"a": "float32 1"},
    "torch.poisson(a, {generator})": {"a": "float32 3 positive"},
    "torch.binomial(a, b, {generator})": {"a": "float32 3 positive", "b": "float32 3 unit"},
    "torch.randn(3, device=a.device, {generator})": {"a": "float32 1"},
    "torch.randint(4, (3,), device=a.device, {generator})": {"a": "float32 1"},
    "torch.randperm(4, device=a.device, {generator})": {"a": "float32 1"},
    "torch.rand(3, out=a, {generator})": {"a": "float32 3"},
    "torch.randn(3, {generator})": {},
    **{
        f"a.{name}({{generator}})": {"a": "float32 3"}
        for name in ("normal_", "exponential_", "cauchy_", "log_normal_", "random_")
    },
    "a.geometric_(0.5, {generator})": {"a": "float32 3"},
    **{
        f"nn.init.{name}(a, {{generator}})": {"a": "float32 3x4"}
        for name in ("normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "xavier_normal_")
    },
}
"""Code -> its operands, before the one that says where the generator is."""

_QKV: Final = {"a": "float32 2x4x3x8", "b": "float32 2x4x5x8", "c": "float32 2x4x5x8"}

_OTHERS: dict[str, dict[str, str]] = {
    "F.gumbel_softmax(a)": {"a": "float32 2x3"},
    "F.scaled_dot_product_attention(a, b, c, dropout_p=0.5)": _QKV,
    "torch.Generator(a.device).get_state()": {"a": "float32 1"},
    "torch.Generator(a.device).manual_seed(3).device": {"a": "float32 1"},
    "torch.Generator(a.device).set_state(torch.Generator(b.device).get_state()).device": {
        "a": "float32 1", "b": "float32 1",
    },
}  # fmt: skip


def samples() -> Iterator[Sample]:
    """The calls as samples, each asked about in every way."""
    for code, operands in _DRAWN.items():
        place = "abc"[len(operands)]
        with_generator = code.format(generator=_GENERATOR.format(place=place))
        yield Sample(OPERATOR, with_generator, {**operands, place: "float32 1"}, first=True)
    for code, operands in _OTHERS.items():
        yield Sample(OPERATOR, code, dict(operands), first=True)
