"""Models of torchao and optimum-quanto on simulated cards: right where a plain load puts them, by each strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pytest_llmdevice import Cell, examine, simulate
from pytest_llmdevice.checks import check_placement, check_quantization
from pytest_llmdevice.checks.values import check_values
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.matrix.axes import Quantization
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.oracle.expectations import expectations_of
from pytest_llmdevice.zoo import cache_directory

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")

STRATEGIES = ("to", "device-map", "auto", "split")


def on_cards(model: str, quantization: str, strategy: str) -> Cell:
    entry = current().of(Quantization)[quantization]
    pytest.importorskip(entry.module or entry.library)
    device = "cuda:1" if strategy == "to" else "cuda:0"
    return Cell(model, device, "bfloat16", quantization, strategy, simulated=True)


def findings(cell: Cell, checkpoint: Callable[[str], str]) -> list[str]:
    folder = checkpoint(cell.model)
    with simulate("cuda:2"):
        results = list(examine(BuiltinTarget(), folder, cell, folder=cache_directory() / "references"))
    assert len(results) > 10
    return [result.message() for result in results if result.findings or result.upstream]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("quantization", ["torchao-int8", "quanto-int4"])
def test_every_check_passes(quantization: str, strategy: str, checkpoint: Callable[[str], str]) -> None:
    assert findings(on_cards("llama", quantization, strategy), checkpoint) == []


@pytest.mark.parametrize("strategy", ["to", "split"])
@pytest.mark.parametrize("quantization", ["torchao-int8", "torchao-float8"])
def test_experts_are_packed_there_too(quantization: str, strategy: str, checkpoint: Callable[[str], str]) -> None:
    assert findings(on_cards("mixtral", quantization, strategy), checkpoint) == []


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("quantization", ["torchao-int8-dynamic", "torchao-int4", "torchao-float8", "quanto-int8"])
def test_what_the_model_is_made_of_is_right(quantization: str, strategy: str, checkpoint: Callable[[str], str]) -> None:
    cell, folder = on_cards("qwen2", quantization, strategy), checkpoint("qwen2")
    with simulate("cuda:2"):
        model: Any = BuiltinTarget().load(folder, cell)
        wanted = expectations_of(model, folder, cell)
        results = [check_quantization(model, wanted, cell), check_placement(model, wanted, cell)]
        results.append(check_values(model, folder, cell))
    assert [result.message() for result in results if not result.passed] == []


@pytest.mark.parametrize("quantization", ["torchao-int8", "quanto-int4", "quanto-int8"])
def test_scales_that_stayed_behind_are_found(quantization: str, checkpoint: Callable[[str], str]) -> None:
    cell, folder = on_cards("llama", quantization, "to"), checkpoint("llama")
    with simulate("cuda:2"):
        model: Any = BuiltinTarget().load(folder, cell)
        weight: Any = model.model.layers[0].mlp.up_proj.weight
        name = next(name for name in weight.__tensor_flatten__()[0] if "scale" in name)
        setattr(weight, name, getattr(weight, name).to("cuda:0"))
        (finding,) = check_quantization(model, expectations_of(model, folder, cell), cell).findings
    assert (finding.where, finding.actual) == (f"model.layers.0.mlp.up_proj.weight.{name}", "cuda:0")
