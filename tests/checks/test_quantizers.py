"""The quantizations of torchao, optimum-quanto and HQQ: known by their layers, skipped where they are not installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_llmdevice import Cell
from pytest_llmdevice.checks import check_quantization
from pytest_llmdevice.hardware import Inventory
from pytest_llmdevice.hardware.library_support import unsupported
from pytest_llmdevice.loading.quantizers import QUANTIZERS
from pytest_llmdevice.loading.smoke_layers import tried
from pytest_llmdevice.matrix.axes import Quantization
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.oracle.expectations import Expectations

every = pytest.mark.parametrize("entry", QUANTIZERS, ids=lambda entry: entry.name)


def installed(entry: Quantization) -> None:
    try:
        there = find_spec(entry.module or entry.library) is not None
    except ModuleNotFoundError:
        there = False
    if not there:
        pytest.skip(f"pip install '{entry.install}'")


@every
def test_without_its_library_a_cell_is_unsupported_with_what_to_install(entry: Quantization) -> None:
    reason = unsupported(Cell("llama", "cpu", "bfloat16", entry.name), Inventory(versions={"transformers": "5.23.0"}))
    assert reason == f"{entry.library} is not installed; pip install '{entry.install}'"


@every
def test_offloaded_weights_are_unsupported(entry: Quantization) -> None:
    machine = Inventory(versions={"transformers": "4.57.1", entry.library: "99"})
    reason = unsupported(Cell("llama", "cpu", "bfloat16", entry.name, "disk-offload"), machine)
    assert reason == f"transformers offloads no weights that {entry.library} has packed"
    assert unsupported(Cell("llama", "cpu", "bfloat16", entry.name, "to"), machine) is None


def test_transformers_5_loads_no_hqq() -> None:
    machine = Inventory(versions={"transformers": "5.23.0", "hqq": "0.2.8"})
    reason = unsupported(Cell("llama", "cpu", "bfloat16", "hqq-int4"), machine)
    assert reason is not None
    assert reason.startswith("transformers 5 loads no HQQ")


@every
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_layer_of_an_installed_library_is_right_on_the_cpu(entry: Quantization, dtype: str) -> None:
    installed(entry)
    result, exact, limit = entry.smoke_test(torch.device("cpu"), dtype)
    assert result.dtype == getattr(torch, dtype)
    assert 0 < float((result.double() - exact).norm() / exact.norm()) < limit


@every
def test_a_model_of_an_installed_library_is_packed_as_its_entry_says(
    entry: Quantization, load: Callable[[Cell], Any], expectations: Callable[[Any, Cell], Expectations]
) -> None:
    installed(entry)
    cell = Cell("llama", "cpu", "bfloat16", entry.name)
    if unsupported(cell, Inventory(versions={"transformers": "5.23.0", entry.library: "99"})):
        pytest.skip("transformers does not load it")
    model = load(cell)
    result = check_quantization(model, expectations(model, cell), cell)
    assert result.passed
    assert result.evidence["quantized modules"] == 14


def test_a_layer_that_stayed_dense_is_not_taken_for_a_packed_one() -> None:
    with pytest.raises(TypeError, match=r"the weight is dense after quantization, not torch\.int8"):
        tried(lambda _: None, torch.device("cpu"), "float32", "int8")


@every
def test_each_is_known_by_its_layer_or_its_tensor_and_none_is_dense(entry: Quantization) -> None:
    assert entry.packs
    assert entry.storage_dtype in entry.form
    assert (entry.layer_class or entry.parameter_class) in entry.form
    assert 0 < entry.packing_error < entry.logits_error < 1


@pytest.mark.parametrize(
    ("asked", "said", "wrong"),
    [
        ("torchao-int8", {"quant_method": "torchao"}, []),
        ("quanto-int8", {"quant_method": "quanto", "weights": "int8"}, []),
        ("quanto-int4", {"quant_method": "quanto", "weights": "int8"}, ["int8"]),
        ("none", {"quant_method": "torchao"}, ["torchao"]),
        ("quanto-int8", {"quant_method": "torchao"}, ["torchao"]),
        ("hqq-int4", {"quant_method": "quanto", "weights": "int4"}, ["quanto"]),
        ("nf4", {"quant_method": "hqq"}, ["hqq"]),
        ("none", {"quant_method": "of-nobody"}, []),
        ("none", {"load_in_8bit": True}, ["int8"]),
    ],
)
def test_a_configuration_says_what_was_done(asked: str, said: dict[str, Any], wrong: list[str]) -> None:
    known = current().of(Quantization).values()
    cell = Cell("llama", "cpu", "bfloat16", asked)
    readers = dict.fromkeys(entry.configured for entry in known)
    assert [problem.actual for reads in readers for problem in reads(said, cell)] == wrong


QUANTO, TORCHAO = "optimum-quanto packs linear layers only", "torchao makes groups in the rows of two dimensions"


@pytest.mark.parametrize(
    ("quantization", "strategy", "why"),
    [
        ("quanto-int8", "to", QUANTO),
        ("quanto-int4", "auto", QUANTO),
        ("torchao-int4", "device-map", TORCHAO),
        ("torchao-int8", "to", None),
        ("torchao-float8", "split", None),
        ("torchao-int8", "auto", "by name (FqnToConfig)"),
        ("torchao-int8-dynamic", "balanced", "by name (FqnToConfig)"),
    ],
)
@pytest.mark.parametrize("model", ["mixtral", "qwen3-moe", "deepseek-v3"])
def test_experts_that_cannot_be_packed_are_unsupported(
    model: str, quantization: str, strategy: str, why: str | None
) -> None:
    versions = {"torchao": "0.18.0", "optimum-quanto": "0.2.7"}
    cell = Cell(model, "cuda:0", "bfloat16", quantization, strategy, simulated=True)
    found = unsupported(cell, Inventory(versions={"transformers": "5.23.0", **versions}))
    assert (found is None) == (why is None)
    assert why is None or why in str(found)
    # Before, experts were linear layers like others.
    assert unsupported(cell, Inventory(versions={"transformers": "4.57.6", **versions})) is None


def test_a_device_map_of_a_dense_model_or_of_the_cpu_is_no_matter() -> None:
    machine = Inventory(versions={"transformers": "5.23.0", "torchao": "0.18.0"})
    assert unsupported(Cell("mixtral", "cpu", "bfloat16", "torchao-int8", "auto"), machine) is None
    assert unsupported(Cell("llama", "cuda:0", "bfloat16", "torchao-int8", "auto", simulated=True), machine) is None


def test_bounds_are_above_what_was_measured_and_not_far() -> None:
    page = (Path(__file__).parents[2] / "docs" / "quantizers.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    known = {f"`{entry.name}`": entry for entry in QUANTIZERS}
    assert {row[0] for row in rows} == {name for name, entry in known.items() if entry.library != "hqq"}
    for name, _, weights, logits, *own in rows:
        entry = known[name]
        said = [float(cell.rpartition(" ")[2]) for cell in (weights, logits, *own)]
        assert said == [entry.packing_error, entry.logits_error, entry.batch_error, entry.batch_error]
        for cell, bound in ((weights, said[0]), (logits, said[1])):
            assert 1.3 < bound / float(cell.partition(" ")[0]) < 6
