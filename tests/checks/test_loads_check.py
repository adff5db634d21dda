"""The check that what was loaded is the checkpoint's model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from pytest_llmdevice import Cell, Result, examine, zoo
from pytest_llmdevice.checks import check_loads
from pytest_llmdevice.diagnosis.hints.loads import ATTENTION, OTHER_MODEL, RESIZED
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.oracle.expectations import Expectations

Load = Callable[[Cell], Any]
Checkpoint = Callable[[str], str]
Check = Callable[[Any, str], Result]


@pytest.fixture
def check(expectations: Callable[[Any, Cell], Expectations], checkpoint: Checkpoint) -> Check:
    return lambda model, family: check_loads(model, expectations(model, cell(family)), checkpoint(family))


def cell(family: str) -> Cell:
    return Cell(family, "cpu", "float32")


@pytest.mark.parametrize("family", zoo.families())
def test_a_loaded_model_passes(family: str, loaded: Load, check: Check) -> None:
    result = check(loaded(cell(family)), family)
    assert result.passed
    assert int(result.evidence["parameters"]) > 10


@pytest.mark.parametrize(("loaded_one", "asked"), [("gpt2", "llama"), ("t5", "qwen2"), ("llama", "mamba")])
def test_a_model_of_another_architecture_is_one_finding(
    loaded_one: str, asked: str, loaded: Load, check: Check
) -> None:
    result = check(loaded(cell(loaded_one)), asked)
    (finding,) = result.findings
    assert (finding.where, finding.hint) == ("the model", OTHER_MODEL)
    assert f"({asked})" in finding.expected
    assert f"({loaded_one})" in finding.actual
    assert "load(checkpoint: str, cell" in result.details


def test_a_model_without_its_head_is_one_finding(checkpoint: Checkpoint, check: Check) -> None:
    from transformers import AutoModel

    (finding,) = check(AutoModel.from_pretrained(checkpoint("llama")), "llama").findings
    assert finding.expected.startswith("LlamaForCausalLM")
    assert finding.actual.startswith("LlamaModel (llama)")


def test_a_layer_of_no_class_is_one_finding(check: Check) -> None:
    (finding,) = check(nn.Linear(2, 2), "llama").findings
    assert finding.actual.startswith("Linear; ")


def test_layers_that_were_cut_off_are_found(checkpoint: Checkpoint, check: Check) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint("llama"), num_hidden_layers=1)
    findings = check(model, "llama").findings
    assert [(one.where, one.expected, one.actual, one.hint) for one in findings] == [
        ("config.num_hidden_layers", "2", "1", RESIZED)
    ]


def test_a_setting_that_was_dropped_is_not_explained_by_what_load_must_return(load: Load, check: Check) -> None:
    model = load(cell("llama"))
    model.model.rotary_emb.attention_scaling = 2.0
    result = check(model, "llama")
    assert [finding.where for finding in result.findings] == ["model.rotary_emb.attention_scaling"]
    assert not result.details


def test_a_vocabulary_may_grow_and_not_shrink(load: Load, check: Check) -> None:
    model = load(cell("llama"))
    model.resize_token_embeddings(328)
    assert check(model, "llama").passed
    model.resize_token_embeddings(300)
    assert [finding.where for finding in check(model, "llama").findings] == [
        "config.vocab_size",
        "model.embed_tokens.weight",
        "lm_head.weight",
    ]


class ReturnsAnother:
    """Loads one checkpoint, whatever is asked for."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        assert checkpoint
        return BuiltinTarget().load(str(zoo.checkpoint("gpt2")), cell)


def test_another_architecture_reads_as_one_bug(checkpoint: Checkpoint) -> None:
    results = {result.check: result for result in examine(ReturnsAnother(), checkpoint("llama"), cell("llama"))}
    for name in ("loads", "placement", "dtypes", "tied", "quantization"):
        assert len(results[name].findings) == 1, results[name].message()


@pytest.mark.parametrize(("asked", "passes"), [("eager", True), ("sdpa", False), ("default", True)])
def test_the_attention_that_a_cell_names_is_the_models(
    asked: str, passes: bool, load: Load, expectations: Callable[[Any, Cell], Expectations], checkpoint: Checkpoint
) -> None:
    model = load(Cell("llama", "cpu", "float32", attention="eager"))
    one = Cell("llama", "cpu", "float32", attention=asked)
    result = check_loads(model, expectations(model, one), checkpoint("llama"), one)
    assert result.passed is passes
    if not passes:
        (finding,) = result.findings
        assert (finding.where, finding.expected, finding.actual, finding.hint) == (
            "attention implementation",
            "sdpa",
            "eager",
            ATTENTION,
        )
