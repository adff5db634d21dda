"""The zoo on simulated cards: every model by every strategy and in every quantization, loaded by the real libraries."""

from __future__ import annotations

import gc
import re
from typing import Any

import pytest
import torch
from checkpoints import checkpoint
from covering import NATIVE, in_turn
from simulation import loaded_cells
from simulation.loaded_cells import (
    AUTOMATIC,
    IGNORED_WARNINGS,
    TWO_DEVICES,
    load,
    prompts,
    tokens,
    tokens_on_cpu,
)

from pytest_llmdevice import Cell
from pytest_llmdevice.checks import (
    Result,
    check_dtypes,
    check_forward,
    check_meta,
    check_mode,
    check_placement,
    check_quantization,
    check_tied,
)
from pytest_llmdevice.diagnosis.hints.quantization import EXPERTS, STATE_DEVICE
from pytest_llmdevice.hardware import Inventory
from pytest_llmdevice.hardware.host import installed_versions
from pytest_llmdevice.hardware.library_support import unsupported
from pytest_llmdevice.matrix import vocabulary
from pytest_llmdevice.matrix.axes import Strategy
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.oracle.expectations import expectations_of
from pytest_llmdevice.simulation import simulate
from pytest_llmdevice.zoo import family

pytestmark = [pytest.mark.filterwarnings(warning) for warning in IGNORED_WARNINGS]

INSTALLED = Inventory(versions=installed_versions())

DTYPES = ("float32", "bfloat16", "float16")

ALONE = tuple(name for name, entry in current().of(Strategy).items() if entry.ranks == 1)
"""The strategies of one process."""


def cell(model: str, strategy: str, quantization: str, dtype: str, attention: str = "default") -> Cell:
    """On the second card, where wrong defaults show; maps that choose for themselves start with the first."""
    device = "cuda:0" if strategy in AUTOMATIC else "cuda:1"
    return Cell(model, device, dtype, quantization, strategy, attention, simulated=True)


def dense_cells() -> list[Cell]:
    """Every model by every strategy, in dtypes that alternate."""
    return [
        cell(model, strategy, "none", DTYPES[(row + column) % 3])
        for row, model in enumerate(vocabulary.models())
        for column, strategy in enumerate(ALONE)
    ]


def quantized_cells() -> list[Cell]:
    """Every model in every quantization by every fourth strategy that there is for it, in alternating dtypes."""
    cells = [
        cell(model, strategy, quantization, DTYPES[(row + layer) % 3])
        for row, model in enumerate(vocabulary.models())
        for column, strategy in enumerate(ALONE)
        for layer, quantization in enumerate(NATIVE[1:])
        if (row + column + layer) % 4 == 0
    ]
    return [found for found in cells if unsupported(found, INSTALLED) is None]


def moved_int8(found: Cell) -> bool:
    return (found.quantization, found.strategy) == ("int8", "to")


def findings(result: Result, found: Cell) -> list[Any]:
    """What a check found, but for what is known of transformers 5 and no matter of devices (see the shipped matrix)."""
    kept_in_float32 = (found.model, found.strategy, found.dtype) == ("t5", "disk-offload", "float16")
    if result.check == "dtypes" and kept_in_float32:
        return [finding for finding in result.findings if not finding.where.endswith("wo.weight")]
    if result.check == "quantization" and family(found.model).moe and found.quantization != "none":
        return [finding for finding in result.findings if finding.hint != EXPERTS]
    return list(result.findings)


def structural_findings(model: Any, found: Cell) -> list[Any]:
    plan = expectations_of(model, checkpoint(found.model), found)
    results = [
        check_meta(model),
        check_placement(model, plan, found),
        check_dtypes(model, plan, found),
        check_tied(model, plan),
        check_quantization(model, plan, found),
        check_mode(model),
    ]
    assert [result.check for result in results if result.hollow] == []
    return [(result.check, finding) for result in results for finding in findings(result, found)]


def expected_places(found: Cell) -> set[str]:
    """The devices that a cell's tensors are on in all."""
    if found.strategy in {"cpu-offload", "disk-offload"}:
        return {found.device, "meta"}
    if found.strategy == "split":
        return {"cuda:0", "cuda:1"}
    return {found.device}


@pytest.mark.parametrize("found", [*dense_cells(), *filter(lambda it: not moved_int8(it), quantized_cells())], ids=str)
def test_a_model_is_where_its_cell_says_and_speaks_as_on_the_cpu(found: Cell) -> None:
    expected = tokens_on_cpu(found)
    with simulate("cuda:2"):
        model = load(found)
        where = loaded_cells.places(model)
        wrong = structural_findings(model, found)
        forward = check_forward(model, found, prompts(), checkpoint(found.model))
        result = tokens(model)
        used = {f"cuda:{index}" for index in range(2) if torch.cuda.max_memory_allocated(index)}
        del model
    assert wrong == []
    assert forward.passed, forward.message()
    assert result == expected
    assert len({tuple(row) for row in expected}) > 1
    if found.strategy in AUTOMATIC:
        # accelerate asks each card how much memory is free, with a tensor there.
        assert where <= used == {"cuda:0", "cuda:1"}
    else:
        assert where == expected_places(found)
        assert used == where - {"meta"}


@pytest.mark.parametrize("found", [*filter(moved_int8, quantized_cells())], ids=str)
def test_a_moved_8_bit_model_leaves_a_part_of_its_weights_behind(found: Cell) -> None:
    # bitsandbytes 0.50: Module._apply puts what `Int8Params.to` returns into the old parameter's data, and CB stays.
    with simulate("cuda:2"):
        model = load(found)
        left = {str(module.weight.CB.device) for module in model.modules() if type(module).__name__ == "Linear8bitLt"}
        where = loaded_cells.places(model)
        wrong = structural_findings(model, found)
        with pytest.raises(RuntimeError, match=TWO_DEVICES) as caught:
            tokens(model)
    assert left == {"cpu"}
    assert where == {"cuda:1"}
    assert {(check, finding.hint) for check, finding in wrong} == {("quantization", STATE_DEVICE)}
    assert {"cpu", "cuda:1"} <= set(re.findall(r"cpu|cuda:\d", str(caught.value)))


@pytest.mark.parametrize(
    ("model", "strategy"),
    in_turn(
        [model for model in vocabulary.models() if model not in {"bloom", "mamba"}],
        ["device-map", "split", "disk-offload"],
    ),
)
def test_fused_attention_is_where_its_operands_are(model: str, strategy: str) -> None:
    found = cell(model, strategy, "none", "float32", "sdpa")
    expected = tokens_on_cpu(found)
    with simulate("cuda:2"):
        loaded = load(found)
        assert loaded.config._attn_implementation == "sdpa"
        assert tokens(loaded) == expected


def test_every_pair_of_axes_is_covered() -> None:
    cells = [*dense_cells(), *quantized_cells()]
    covered = {(found.model, found.strategy) for found in cells}
    assert covered == {(model, strategy) for model in vocabulary.models() for strategy in ALONE}
    possible = {
        (model, quantization)
        for model in vocabulary.models()
        for quantization in NATIVE
        if unsupported(cell(model, "device-map", quantization, "float16"), INSTALLED) is None
    }
    assert {(found.model, found.quantization) for found in cells} == possible
    packed = {(found.strategy, found.quantization) for found in cells if found.quantization != "none"}
    assert len(packed) == 6 * 4
    assert {(found.dtype, found.quantization) for found in cells} == {
        (dtype, quantization) for dtype in DTYPES for quantization in NATIVE
    }


@pytest.mark.parametrize("strategy", ["device-map", "split", "auto"])
def test_a_card_is_empty_again_when_a_model_is_gone(strategy: str) -> None:
    found = cell("llama", strategy, "none", "float32")
    checkpoint("llama")
    with simulate("cuda:2"):
        model = load(found)
        tokens(model)
        held = sum(torch.cuda.memory_allocated(index) for index in range(2))
        least = sum(parameter.nbytes for parameter in model.parameters())
        del model
        gc.collect()
        left = [torch.cuda.memory_allocated(index) for index in range(2)]
    assert held >= least
    assert left == [0, 0]
