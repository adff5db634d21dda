"""The check that every tensor is in its dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pytest_llmdevice import Cell, zoo
from pytest_llmdevice.checks import Result, check_dtypes
from pytest_llmdevice.diagnosis.hints.dtypes import (
    ADAPTER,
    BUFFER_CAST,
    CONFIG,
    GROWN,
    HARD_CODED,
    KBIT,
    KEPT_CAST,
    LATE,
)
from pytest_llmdevice.diagnosis.hints.loads import OTHER_MODEL
from pytest_llmdevice.matrix.vocabulary import DTYPES
from pytest_llmdevice.oracle.expectations import Expectations

Load = Callable[[Cell], Any]
MakePlan = Callable[[Any, Cell], Expectations]

BF16 = Cell("llama", "cpu", "bfloat16")


@pytest.fixture
def check(expectations: MakePlan, checkpoint: Callable[[str], str]) -> Callable[[Any, Cell], Result]:
    return lambda model, cell: check_dtypes(model, expectations(model, cell), cell, checkpoint(cell.model))


Check = Callable[[Any, Cell], Result]


def found(result: Result) -> list[tuple[str, str, str]]:
    return [(finding.where, finding.expected, finding.actual) for finding in result.findings]


@pytest.mark.parametrize("family", zoo.families())
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_loaded_model_passes(family: str, dtype: str, loaded: Load, check: Check) -> None:
    cell = Cell(family, "cpu", dtype)
    result = check(loaded(cell), cell)
    assert result.passed
    assert int(result.evidence[dtype]) > 10


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
@pytest.mark.parametrize("family", ["llama", "mixtral", "t5"])
def test_a_quantized_model_passes_and_its_dense_tensors_are_counted(
    family: str, quantization: str, loaded: Load, check: Check
) -> None:
    cell = Cell(family, "cpu", "bfloat16", quantization)
    result = check(loaded(cell), cell)
    assert result.passed
    assert int(result.evidence["bfloat16"]) > 2
    assert not {"uint8", "int8"} & set(result.evidence)


@pytest.mark.parametrize(
    "name",
    ["model.norm", "lm_head", "model.embed_tokens", "model.layers.1.input_layernorm", "model.layers.0.mlp.up_proj"],
)
def test_one_part_in_float32_is_found(name: str, load: Load, check: Check) -> None:
    model = load(BF16)
    model.get_submodule(name).float()
    result = check(model, BF16)
    assert found(result) == [(f"{name}.weight", "bfloat16", "float32")]
    # Of its own shape it was not made anew for another vocabulary.
    assert result.findings[0].hint == LATE
    assert (result.evidence["bfloat16"], result.evidence["float32"]) == (20, 3)


def test_experts_in_float32_are_found(load: Load, check: Check) -> None:
    cell = Cell("mixtral", "cpu", "bfloat16")
    model = load(cell)
    model.model.layers[0].mlp.experts.float()
    where = "model.layers.0.mlp.experts"
    assert found(check(model, cell)) == [
        (f"{where}.gate_up_proj", "bfloat16", "float32"),
        (f"{where}.down_proj", "bfloat16", "float32"),
    ]


def test_a_dtype_that_was_dropped_is_found_in_every_parameter(load: Load, check: Check) -> None:
    model = load(Cell("llama", "cpu", "float32"))
    findings = found(check(model, BF16))
    assert {where for where, _, _ in findings} == {name for name, _ in model.named_parameters()}
    assert {(wanted, is_in) for _, wanted, is_in in findings} == {("bfloat16", "float32")}


def test_one_half_is_not_the_other(load: Load, check: Check) -> None:
    model = load(Cell("llama", "cpu", "float16"))
    assert found(check(model, BF16))[0] == ("model.embed_tokens.weight", "bfloat16", "float16")


@pytest.mark.parametrize(("family", "count"), [("llama", 2), ("gemma3", 4)])
def test_rounded_rotary_frequencies_are_found_with_the_reason(
    family: str, count: int, load: Load, check: Check
) -> None:
    cell = Cell(family, "cpu", "bfloat16")
    # The way it happens: `.to(dtype)` casts buffers that were computed in float32.
    findings = found(check(load(cell).to(torch.bfloat16), cell))
    assert len(findings) == count
    for where, wanted, actual in findings:
        assert "inv_freq" in where
        assert wanted.startswith("float32 (")
        assert actual == "bfloat16"


def test_what_t5_keeps_in_float32_may_not_be_cast(load: Load, check: Check) -> None:
    cell = Cell("t5", "cpu", "float16")
    model = load(cell).half()
    findings = found(check(model, cell))
    assert [where.rpartition(".wo.")[2] for where, _, _ in findings] == ["weight"] * 4
    assert {(wanted, actual) for _, wanted, actual in findings} == {
        ("float32 (kept in float32 by the model class)", "float16")
    }


def test_the_correction_bias_of_deepseek_may_not_be_cast(load: Load, check: Check) -> None:
    cell = Cell("deepseek-v3", "cpu", "bfloat16")
    model = load(cell)
    gate = model.model.layers[1].mlp.gate
    gate.e_score_correction_bias.data = gate.e_score_correction_bias.data.bfloat16()
    ((where, wanted, actual),) = found(check(model, cell))
    assert where == "model.layers.1.mlp.gate.e_score_correction_bias"
    assert wanted.startswith("float32 (")
    assert actual == "bfloat16"


def test_float32_is_not_what_bfloat16_keeps_in_t5(load: Load, check: Check) -> None:
    cell = Cell("t5", "cpu", "bfloat16")
    model = load(cell)
    model.encoder.block[0].layer[1].DenseReluDense.wo.float()
    ((where, wanted, _),) = found(check(model, cell))
    assert (where, wanted) == ("encoder.block.0.layer.1.DenseReluDense.wo.weight", "bfloat16")


def test_a_dense_part_of_a_quantized_model_is_found(load: Load, check: Check) -> None:
    cell = Cell("llama", "cpu", "bfloat16", "nf4")
    model = load(cell)
    model.lm_head.float()
    assert found(check(model, cell)) == [("lm_head.weight", "bfloat16", "float32")]


def test_a_layer_that_should_have_been_packed_is_found_when_it_is_in_float32(load: Load, check: Check) -> None:
    cell = Cell("llama", "cpu", "bfloat16", "nf4")
    model = load(cell)
    model.model.layers[0].mlp.up_proj = nn.Linear(64, 128, bias=False)
    assert found(check(model, cell)) == [("model.layers.0.mlp.up_proj.weight", "bfloat16", "float32")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_may_be_in_float32_or_in_the_dtype_of_the_cell(dtype: torch.dtype, load: Load, check: Check) -> None:
    model = load(BF16)
    model.model.layers[0].adapter = nn.Linear(2, 2, dtype=dtype)
    assert check(model, BF16).passed


def test_an_adapter_in_another_half_is_found(load: Load, check: Check) -> None:
    model = load(BF16)
    model.model.layers[0].adapter = nn.Linear(2, 2, bias=False, dtype=torch.float16)
    assert found(check(model, BF16)) == [("model.layers.0.adapter.weight", "bfloat16 or float32", "float16")]


def test_an_integer_buffer_is_no_matter_of_the_dtype(load: Load, check: Check) -> None:
    model = load(BF16)
    model.register_buffer("step", torch.zeros(1, dtype=torch.int64))
    assert check(model, BF16).passed


def test_a_model_without_tensors_is_one_finding(check: Check) -> None:
    (finding,) = check(nn.ReLU(), BF16).findings
    assert (finding.where, finding.hint) == ("the model", OTHER_MODEL)


def hinted(result: Result) -> set[tuple[str, Any]]:
    return {(finding.where, finding.hint) for finding in result.findings}


def test_an_embedding_that_grew_in_the_default_dtype_is_found_as_such(load: Load, check: Check) -> None:
    model = load(BF16)
    grown = nn.Embedding(384, 64)
    model.model.embed_tokens = grown
    assert hinted(check(model, BF16)) == {("model.embed_tokens.weight", GROWN)}


def test_a_cast_of_everything_is_told_by_its_buffers(load: Load, check: Check) -> None:
    model = load(Cell("llama", "cpu", "float32")).to(torch.bfloat16)
    assert hinted(check(model, BF16)) == {
        ("model.rotary_emb.inv_freq", BUFFER_CAST),
        ("model.rotary_emb.original_inv_freq", BUFFER_CAST),
    }


def test_a_kept_module_that_was_cast_is_told_by_the_list(load: Load, check: Check) -> None:
    cell = Cell("t5", "cpu", "float16")
    assert {hint for _, hint in hinted(check(load(cell).half(), cell))} == {KEPT_CAST}


def test_a_half_that_is_written_in_the_code_is_told(load: Load, check: Check) -> None:
    result = check(load(Cell("llama", "cpu", "float16")), Cell("llama", "cpu", "float32"))
    assert {hint for where, hint in hinted(result) if where != "config.dtype"} == {HARD_CODED}
    assert ("config.dtype", CONFIG) in hinted(result)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_model_that_was_prepared_for_training_is_told(load: Load, check: Check) -> None:
    peft = pytest.importorskip("peft")
    cell = Cell("llama", "cpu", "bfloat16", "nf4")
    model = peft.prepare_model_for_kbit_training(load(cell))
    assert {hint for _, hint in hinted(check(model, cell))} == {KBIT}


@pytest.mark.parametrize("dtype", ["float16", torch.float16])
def test_a_configuration_that_says_another_dtype_is_found(dtype: Any, load: Load, check: Check) -> None:
    model = load(BF16)
    model.config.dtype = dtype
    assert found(check(model, BF16)) == [("config.dtype", "bfloat16 or float32", "float16")]


def test_the_dtype_of_the_checkpoint_may_stay_in_the_configuration(load: Load, check: Check) -> None:
    model = load(BF16)
    model.config.dtype = torch.float32
    assert check(model, BF16).passed


def test_a_part_of_the_configuration_that_was_not_updated_is_found(load: Load, check: Check) -> None:
    model = load(BF16)
    model.config.text_config = type(model.config)(dtype="float16")
    assert found(check(model, BF16)) == [("config.text_config.dtype", "bfloat16 or float32", "float16")]
    model.config.text_config = type(model.config)(dtype="bfloat16")
    assert check(model, BF16).passed


def test_a_buffer_that_the_class_computes_may_stay_in_float32(load: Load, check: Check) -> None:
    cell = Cell("gemma3", "cpu", "bfloat16")
    model = load(cell)
    model.model.embed_tokens.embed_scale = model.model.embed_tokens.embed_scale.float()
    assert check(model, cell).passed


def test_accelerate_may_cast_what_a_class_keeps_in_float32(check: Check, checkpoint: Callable[[str], str]) -> None:
    from accelerate import init_empty_weights, load_checkpoint_and_dispatch
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    auto: Any = AutoModelForSeq2SeqLM
    with init_empty_weights():
        model = auto.from_config(AutoConfig.from_pretrained(checkpoint("t5")))
    model.tie_weights()
    model = load_checkpoint_and_dispatch(model, checkpoint("t5"), device_map={"": "cpu"}, dtype=torch.float16)
    result = check(model, Cell("t5", "cpu", "float16"))
    assert result.passed, result.message()


def test_an_adapter_in_another_half_is_told(load: Load, check: Check) -> None:
    model = load(BF16)
    model.model.layers[0].adapter = nn.Linear(2, 2, bias=False, dtype=torch.float16)
    assert hinted(check(model, BF16)) == {("model.layers.0.adapter.weight", ADAPTER)}
