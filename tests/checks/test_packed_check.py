"""The check of what bitsandbytes keeps beside a packed weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pytest_llmdevice import Cell, simulate
from pytest_llmdevice.checks import Result, check_quantization
from pytest_llmdevice.diagnosis.hints.quantization import BLOCKSIZE, STATE_DEVICE, STATE_DTYPE
from pytest_llmdevice.oracle.expectations import Expectations

pytest.importorskip("bitsandbytes")

Load = Callable[[Cell], Any]
Check = Callable[[Any, Cell], Result]

UP = "model.layers.0.mlp.up_proj"


def llama(quantization: str) -> Cell:
    return Cell("llama", "cpu", "bfloat16", quantization)


@pytest.fixture
def check(expectations: Callable[[Any, Cell], Expectations]) -> Check:
    return lambda model, cell: check_quantization(model, expectations(model, cell), cell)


@pytest.mark.parametrize("key", ["code", "state2.absmax", "state2.code", "offset"])
def test_a_table_of_a_double_quantization_on_another_device_is_found(key: str, load: Load, check: Check) -> None:
    model = load(llama("nf4-double"))
    owner: Any = model.model.layers[0].mlp.up_proj.weight.quant_state
    for part in key.split(".")[:-1]:
        owner = getattr(owner, part)
    last = key.rpartition(".")[2]
    setattr(owner, last, getattr(owner, last).to("meta"))
    (finding,) = check(model, llama("nf4-double")).findings
    assert (finding.where, finding.hint) == (f"{UP}.weight.quant_state.{key}", STATE_DEVICE)


def test_scales_that_were_cast_with_the_model_are_found(load: Load, check: Check) -> None:
    model = load(llama("nf4"))
    state = model.model.layers[0].mlp.up_proj.weight.quant_state
    state.absmax = state.absmax.bfloat16()
    (finding,) = check(model, llama("nf4")).findings
    assert (finding.where, finding.expected, finding.actual, finding.hint) == (
        f"{UP}.weight.quant_state.absmax",
        "float32",
        "bfloat16",
        STATE_DTYPE,
    )


def test_int8_scales_are_looked_at_before_and_after_the_first_pass(load: Load, check: Check) -> None:
    model = load(llama("int8"))
    layer = model.model.layers[0].mlp.up_proj
    layer.weight.SCB = layer.weight.SCB.half()
    assert [finding.where for finding in check(model, llama("int8")).findings] == [f"{UP}.weight.SCB"]
    layer.weight.SCB = layer.weight.SCB.float()
    model(torch.tensor([[5, 6, 7]]))
    assert check(model, llama("int8")).passed
    layer.state.SCB = layer.state.SCB.to("meta")
    (finding,) = check(model, llama("int8")).findings
    assert (finding.where, finding.hint) == (f"{UP}.state.SCB", STATE_DEVICE)


def test_int8_scales_that_are_gone_are_found(load: Load, check: Check) -> None:
    model = load(llama("int8"))
    model.model.layers[0].mlp.up_proj.weight.SCB = None
    (finding,) = check(model, llama("int8")).findings
    assert (finding.where, finding.actual) == (f"{UP}.weight.SCB", "none")


def test_an_int8_model_that_was_moved_leaves_its_state_behind(load: Load, check: Check) -> None:
    # bitsandbytes-foundation/bitsandbytes#1791: `Module.to` keeps the parameter and replaces its data only.
    with simulate("cuda:2"):
        cell = Cell("llama", "cuda:1", "bfloat16", "int8", "to")
        result = check(load(cell), cell)
    assert {finding.hint for finding in result.findings} == {STATE_DEVICE}
    assert {(finding.expected, finding.actual) for finding in result.findings} == {("cuda:1, as its weight", "cpu")}


def test_blocks_of_another_size_are_found(load: Load, check: Check) -> None:
    model = load(llama("nf4"))
    layer = model.model.layers[0].mlp.up_proj
    dense = torch.randn(128, 64, dtype=torch.bfloat16)
    make: Any = pytest.importorskip("bitsandbytes").nn.Params4bit
    layer.weight = make(dense, requires_grad=False, blocksize=1024, compress_statistics=False, quant_type="nf4").to(
        "cpu"
    )
    assert [finding.hint for finding in check(model, llama("nf4")).findings] == [BLOCKSIZE]
