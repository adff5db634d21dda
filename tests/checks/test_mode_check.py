"""The check that nothing is in training mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_llmdevice import Cell
from pytest_llmdevice.checks import check_mode
from pytest_llmdevice.diagnosis.hints.state import TRAINING

Load = Callable[[Cell], Any]

CELL = Cell("gpt2", "cpu", "float32")


def test_a_loaded_model_passes_with_a_count_of_its_modules(loaded: Load) -> None:
    model = loaded(CELL)
    result = check_mode(model)
    assert result.passed
    assert result.evidence == {"modules": len(list(model.modules()))}


def test_a_model_in_training_mode_is_found(load: Load) -> None:
    first = check_mode(load(CELL).train()).findings[0]
    assert (first.where, first.expected, first.actual) == ("the model", "eval mode", "training mode")
    assert first.hint == TRAINING


def test_one_module_in_training_mode_is_found(load: Load) -> None:
    model = load(CELL)
    model.transformer.h[1].attn.attn_dropout.train()
    (finding,) = check_mode(model).findings
    assert finding.where == "transformer.h.1.attn.attn_dropout"


def test_a_root_that_alone_is_in_training_mode_is_found(load: Load) -> None:
    model = load(CELL)
    model.training = True
    (finding,) = check_mode(model).findings
    assert finding.where == "the model"


def test_two_parts_in_training_mode_are_both_found(load: Load) -> None:
    model = load(CELL)
    model.transformer.h[0].train()
    model.transformer.drop.train()
    assert {finding.where for finding in check_mode(model).findings} == {"transformer.h.0", "transformer.drop"}
