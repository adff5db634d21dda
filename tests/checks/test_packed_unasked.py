"""A model that is packed although its cell asks for none, whoever packed it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from pytest_llmdevice import Cell
from pytest_llmdevice.checks import Result, check_quantization
from pytest_llmdevice.diagnosis.hints.quantization import UNASKED
from pytest_llmdevice.oracle.expectations import Expectations

Load = Callable[[Cell], Any]
Check = Callable[[Any], Result]

DENSE = Cell("llama", "cpu", "float32")
UP = "model.layers.0.mlp.up_proj"


@pytest.fixture
def check(expectations: Callable[[Any, Cell], Expectations]) -> Check:
    return lambda model: check_quantization(model, expectations(model, DENSE), DENSE)


def scaled(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return (weight / scale).round().to(torch.int8), scale


class BufferLinear(nn.Module):
    """Bytes and scales as buffers of its own names."""

    qweight: torch.Tensor
    scales: torch.Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        values, scale = scaled(linear.weight.detach())
        self.register_buffer("qweight", values)
        self.register_buffer("scales", scale)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return functional.linear(inputs, self.qweight.to(inputs.dtype) * self.scales.to(inputs.dtype))


class HiddenLinear(nn.Module):
    """The same as plain attributes, which no list of parameters has."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.held, self.scale = scaled(linear.weight.detach())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return functional.linear(inputs, self.held.float() * self.scale)


class HalfByteLinear(nn.Module):
    """Two numbers in a byte, which makes the weight half as large."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        values, self.scale = scaled(linear.weight.detach())
        values = (values.float() / 18.2).round().to(torch.int8) + 8
        packed = (values[:, ::2] << 4 | values[:, 1::2]).to(torch.uint8)
        self.weight = nn.Parameter(packed, requires_grad=False)


class ByteFloatLinear(nn.Linear):
    """Floats of a byte, cast up when they are needed."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return functional.linear(inputs, self.weight.to(inputs.dtype))


def byte_floats(linear: nn.Linear) -> nn.Module:
    made = ByteFloatLinear(linear.in_features, linear.out_features, bias=False)
    made.weight = nn.Parameter(linear.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
    return made


def dynamic(linear: nn.Linear) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize: Any = torch.ao.quantization.quantize_dynamic
        made: nn.Module = quantize(nn.Sequential(linear), {nn.Linear})[0]
        return made


@pytest.mark.parametrize(
    ("pack", "actual"),
    [
        (BufferLinear, "BufferLinear with int8"),
        (HiddenLinear, "HiddenLinear with int8"),
        (HalfByteLinear, "HalfByteLinear with uint8"),
        (byte_floats, "ByteFloatLinear with float8_e4m3fn"),
        (dynamic, "Linear with qint8"),
    ],
)
def test_one_packed_layer_is_found_whatever_packed_it(
    pack: Callable[[nn.Linear], nn.Module], actual: str, load: Load, check: Check
) -> None:
    model = load(DENSE)
    sizes = [module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear)]
    share = model.model.layers[0].mlp.up_proj.weight.numel() / sum(sizes)
    model.model.layers[0].mlp.up_proj = pack(model.model.layers[0].mlp.up_proj)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = check(model)
    (finding,) = result.findings
    assert (finding.where, finding.expected, finding.actual) == (UP, "dense: not to be quantized", actual)
    assert finding.hint == UNASKED
    assert result.evidence["share of elements quantized"] == f"{share:.0%}" != "0%"


def test_bytes_beside_a_dense_weight_that_is_not_used_are_found(load: Load, check: Check) -> None:
    model = load(DENSE)
    layer = model.model.layers[0].mlp.up_proj
    layer.register_buffer("codes", scaled(layer.weight.detach())[0])
    (finding,) = check(model).findings
    assert (finding.where, finding.actual) == (UP, "Linear with int8")


def test_a_packed_embedding_is_found(load: Load, check: Check) -> None:
    model = load(DENSE)
    embedding = model.get_input_embeddings()
    embedding.weight = nn.Parameter(embedding.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
    (finding,) = check(model).findings
    assert (finding.where, finding.expected) == ("model.embed_tokens", "a dense embedding")
    assert finding.actual == "Embedding with float8_e4m3fn"


@pytest.mark.parametrize("kind", [torch.int64, torch.bool])
def test_small_integers_and_masks_beside_a_dense_weight_are_no_packing(
    kind: torch.dtype, load: Load, check: Check
) -> None:
    model = load(DENSE)
    layer = model.model.layers[0].mlp.up_proj
    layer.register_buffer("positions", torch.arange(64).to(kind))
    layer.register_buffer("mask", torch.ones(layer.weight.shape, dtype=torch.bool))
    assert check(model).passed


def test_a_dense_model_in_another_dtype_is_not_packed(load: Load, check: Check) -> None:
    assert check(load(DENSE).to(torch.bfloat16)).passed
