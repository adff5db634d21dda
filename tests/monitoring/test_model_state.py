"""What becomes of a model that was handed to code under test is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pytest_llmdevice import simulate
from pytest_llmdevice.monitoring.change import Change
from pytest_llmdevice.monitoring.model_state import unchanged_model


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.Dropout()).eval()


def became(change: Callable[[Any], object], model: nn.Module | None = None) -> list[Change]:
    model = model or small()
    with unchanged_model(model) as changes:
        change(model)
    return changes


def test_a_model_that_is_only_run_is_as_before() -> None:
    assert became(lambda model: model(torch.ones(1, 3))) == []


@pytest.mark.parametrize("numbers", [[float("nan")], [float("inf"), float("-inf")]])
def test_a_model_with_numbers_that_are_not_finite_is_as_before(numbers: list[float]) -> None:
    model: Any = small()
    with torch.no_grad():
        model[0].weight[0, : len(numbers)] = torch.tensor(numbers)
    assert became(lambda model: model(torch.ones(1, 3)), model) == []
    assert [one.name for one in became(lambda model: model[0].weight.data[0, 0].zero_(), model)] == ["0.weight"]


def test_a_cast_is_seen_in_each_tensor() -> None:
    assert became(lambda model: model.half()) == [
        Change("model", "0.weight", "float32", "float16"),
        Change("model", "0.bias", "float32", "float16"),
    ]


def test_digits_that_are_lost_on_the_way_and_back_are_seen() -> None:
    changes = became(lambda model: model.half().float())
    assert {(one.name, one.after) for one in changes} == {
        ("0.weight", "of other values"),
        ("0.bias", "of other values"),
    }


def test_a_move_is_seen() -> None:
    with simulate("cuda:2"):
        changes = became(lambda model: model.to("cuda:1"))
    assert {(one.before, one.after) for one in changes} == {("cpu", "cuda:1")}


def test_the_mode_is_seen_and_put_back() -> None:
    model = small()
    assert became(lambda one: one.train(), model) == [Change("training", "the model", "eval mode", "training mode")]
    assert not any(module.training for module in model.modules())


def test_a_part_that_a_hook_of_accelerates_carries_to_a_card_is_no_change() -> None:
    accelerate = pytest.importorskip("accelerate")
    with simulate("cuda:2"):
        model, _ = accelerate.cpu_offload_with_hook(small(), torch.device("cuda:0"))
        assert became(lambda one: one(torch.ones(1, 3)), model) == []
        assert model[0].weight.device.type == "cuda"
