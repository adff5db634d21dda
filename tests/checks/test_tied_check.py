"""The check that weights are tied as the configuration says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_llmdevice import Cell, zoo
from pytest_llmdevice.checks import Result, check_tied
from pytest_llmdevice.diagnosis.hints.placement import TIED
from pytest_llmdevice.oracle.expectations import Expectations

Load = Callable[[Cell], Any]
MakePlan = Callable[[Any, Cell], Expectations]
Check = Callable[[Any, str], Result]

pytestmark = pytest.mark.filterwarnings("ignore:Some parameters are on the meta device")


@pytest.fixture
def check(expectations: MakePlan) -> Check:
    return lambda model, family: check_tied(model, expectations(model, Cell(family, "cpu", "float32")))


def cell(family: str) -> Cell:
    return Cell(family, "cpu", "float32")


def found(result: Result) -> list[tuple[str, str, str]]:
    return [(finding.where, finding.expected, finding.actual) for finding in result.findings]


@pytest.mark.parametrize("strategy", ["to", "disk-offload", "shared-memory"])
@pytest.mark.parametrize("family", zoo.families())
def test_a_loaded_model_passes(family: str, strategy: str, loaded: Load, check: Check) -> None:
    result = check(loaded(Cell(family, "cpu", "float32", strategy=strategy)), family)
    assert result.passed
    tied = {"t5": 4, "qwen2": 2}.get(family, 2 if zoo.family(family).tied else 0)
    assert result.evidence == {"tied tensors": tied, "untied pairs": int(tied == 0)}


def test_a_head_that_was_untied_after_the_load_is_found(load: Load, check: Check) -> None:
    model = load(cell("qwen2"))
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    result = check(model, "qwen2")
    assert found(result) == [("lm_head.weight", "the same tensor as model.embed_tokens.weight", "a tensor of its own")]
    assert result.findings[0].hint == TIED


def test_of_three_tied_tensors_each_one_that_was_untied_is_found(load: Load, check: Check) -> None:
    model = load(cell("t5"))
    model.encoder.embed_tokens.weight = nn.Parameter(model.shared.weight.detach().clone())
    assert found(check(model, "t5")) == [
        ("encoder.embed_tokens.weight", "the same tensor as shared.weight", "a tensor of its own")
    ]


def test_a_head_that_was_tied_wrongly_is_found(load: Load, check: Check) -> None:
    model = load(cell("llama"))
    model.lm_head.weight = model.model.embed_tokens.weight
    assert found(check(model, "llama")) == [
        (
            "lm_head.weight",
            "a tensor of its own (tie_word_embeddings is false)",
            "the tensor of model.embed_tokens.weight",
        )
    ]


def test_a_tied_head_that_is_gone_is_found(load: Load, check: Check) -> None:
    model = load(cell("qwen2"))
    del model.lm_head.weight
    assert found(check(model, "qwen2")) == [
        ("lm_head.weight", "tied to model.embed_tokens.weight", "nothing of that name")
    ]


def test_two_parameters_over_one_storage_are_tied(load: Load, check: Check) -> None:
    model = load(cell("qwen2"))
    model.lm_head.weight = nn.Parameter(model.model.embed_tokens.weight.detach())
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    assert check(model, "qwen2").passed


def test_a_transposed_view_is_not_the_same_tensor(load: Load, check: Check) -> None:
    model = load(cell("qwen2"))
    model.lm_head.weight = nn.Parameter(model.model.embed_tokens.weight.detach().T)
    assert len(check(model, "qwen2").findings) == 1


@pytest.fixture
def offloaded(load: Load, tmp_path: Path) -> Callable[[str], Any]:
    """`offloaded(family)`: a model all of whose tensors are on disk."""
    from accelerate import disk_offload

    def offload(family: str) -> Any:
        model = load(cell(family))
        disk_offload(model, str(tmp_path), execution_device=torch.device("cpu"), offload_buffers=True)
        return model

    return offload


def test_tied_tensors_on_disk_are_compared_by_their_values(offloaded: Callable[[str], Any], check: Check) -> None:
    model = offloaded("qwen2")
    assert model.lm_head.weight.is_meta
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    assert check(model, "qwen2").passed


def test_tensors_on_disk_with_values_of_their_own_are_not_tied(offloaded: Callable[[str], Any], check: Check) -> None:
    model = offloaded("llama")
    assert model.lm_head.weight.is_meta
    assert check(model, "llama").passed


def test_nothing_to_tie_is_hollow() -> None:
    assert check_tied(nn.Linear(1, 1), Expectations((), (), (), (), ("cpu",))).hollow
