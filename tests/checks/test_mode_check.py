"""The check that nothing is in training mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pytest_llmdevice import Cell
from pytest_llmdevice.checks import check_mode
from pytest_llmdevice.checks.running import minds_training
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


@pytest.mark.parametrize("kind", [nn.Embedding, nn.Linear])
def test_a_layer_that_does_the_same_in_both_modes_is_no_finding(kind: Any, load: Load) -> None:
    model = load(CELL)
    model.lm_head = kind(64, 320)
    assert model.lm_head.training
    assert check_mode(model).passed


def test_a_class_of_ones_own_that_asks_for_its_mode_is_found(load: Load) -> None:
    class Asks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if self.training else x

    class DoesNot(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    model = load(CELL)
    model.first, model.second = Asks(), DoesNot()
    (finding,) = check_mode(model).findings
    assert finding.where == "first"


@pytest.mark.parametrize(("kind", "minds"), [(nn.Dropout, True), (nn.BatchNorm1d, True), (nn.LayerNorm, False)])
def test_what_minds_is_read_from_the_code_of_a_class(kind: type, *, minds: bool) -> None:
    assert minds_training(kind) == minds


def test_a_wrapper_that_nobody_switched_is_no_finding(load: Load) -> None:
    assert check_mode(nn.DataParallel(load(CELL))).passed
    assert check_mode(nn.DataParallel(load(CELL).train())).findings
