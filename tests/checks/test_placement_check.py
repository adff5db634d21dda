"""The check that every tensor is on its device. Cards are pretended: what is compared are names of devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

from pytest_llmdevice import Cell, zoo
from pytest_llmdevice.checks import check_placement
from pytest_llmdevice.checks.structure import LEFT_BEHIND, WRONG_INDEX
from pytest_llmdevice.loading.plan import Expected, Plan

Load = Callable[[Cell], Any]
MakePlan = Callable[[Any, Cell], Plan]

pytestmark = pytest.mark.filterwarnings("ignore:Some parameters are on the meta device")


@dataclass
class Placed:
    """A tensor of which only the place matters."""

    device: torch.device

    @property
    def is_meta(self) -> bool:
        return self.device.type == "meta"


@dataclass
class Pretended:
    """A model whose tensors are said to be somewhere."""

    parameters: dict[str, str]
    buffers: dict[str, str] = field(default_factory=dict)

    def named_parameters(self, *, remove_duplicate: bool) -> Iterator[tuple[str, Placed]]:
        assert not remove_duplicate
        return ((name, Placed(torch.device(place))) for name, place in self.parameters.items())

    def named_buffers(self, *, remove_duplicate: bool) -> Iterator[tuple[str, Placed]]:
        assert not remove_duplicate
        return ((name, Placed(torch.device(place))) for name, place in self.buffers.items())


def pretended(**places: str) -> Any:
    """Parameters, and buffers where the name begins with `buffer`."""
    buffers = {name: place for name, place in places.items() if name.startswith("buffer")}
    return Pretended({name: place for name, place in places.items() if name not in buffers}, buffers)


def planned(*devices: str, **tensors: str) -> Plan:
    """A plan with one entry for each of `tensors`; `devices` are all that the cell may use."""
    expected = tuple(
        Expected(name, "buffer" if name.startswith("buffer") else "parameter", tuple(place.split("|")), "", "")
        for name, place in tensors.items()
    )
    return Plan(expected, (), (), (), devices)


def cell(device: str, strategy: str = "to") -> Cell:
    return Cell("llama", device, "float16", strategy=strategy)


@pytest.mark.parametrize("family", zoo.families())
@pytest.mark.parametrize("strategy", ["to", "auto", "disk-offload"])
def test_a_loaded_model_passes(family: str, strategy: str, loaded: Load, plan: MakePlan) -> None:
    asked = Cell(family, "cpu", "float32", strategy=strategy)
    model = loaded(asked)
    result = check_placement(model, plan(model, asked), asked)
    assert result.passed
    places = {"on cpu", "on meta"} if strategy == "disk-offload" else {"on cpu"}
    assert set(result.evidence) == places
    assert sum(map(int, result.evidence.values())) == len(plan(model, asked).tensors)


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1", "mps", "xpu:0"])
def test_a_model_that_stayed_on_the_cpu_is_found_whole(device: str, load: Load, plan: MakePlan) -> None:
    model = load(Cell("gpt2", "cpu", "float16"))
    asked = Cell("gpt2", device, "float16")
    result = check_placement(model, plan(model, asked), asked)
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    assert {finding.where for finding in result.findings} == {name for name, _ in named}
    assert {(finding.expected, finding.actual) for finding in result.findings} == {(device, "cpu")}
    assert {finding.hint for finding in result.findings} == {LEFT_BEHIND}


def test_a_model_without_its_tensors_is_found_whole(plan: MakePlan) -> None:
    asked = cell("cpu")
    result = check_placement(nn.Module(), plan(nn.Module(), asked), asked)
    assert ("lm_head.weight", "a parameter", "nothing of that name") in [
        (finding.where, finding.expected, finding.actual) for finding in result.findings
    ]
    assert len(result.findings) == len(plan(nn.Module(), asked).tensors)


def test_a_right_card_passes_with_a_count_for_each_place() -> None:
    result = check_placement(
        pretended(a="cuda:1", b="cuda:1", buffer="cuda:1"),
        planned("cuda:1", a="cuda:1", b="cuda:1", buffer="cuda:1"),
        cell("cuda:1"),
    )
    assert result.passed
    assert result.evidence == {"on cuda:1": 3}


@pytest.mark.parametrize("name", ["weight", "buffer"])
def test_the_wrong_card_is_found_by_its_index(name: str) -> None:
    model, plan = pretended(**{name: "cuda:0", "b": "cuda:1"}), planned("cuda:1", **{name: "cuda:1", "b": "cuda:1"})
    (finding,) = check_placement(model, plan, cell("cuda:1")).findings
    assert (finding.where, finding.expected, finding.actual) == (name, "cuda:1", "cuda:0")
    assert finding.hint == WRONG_INDEX


@pytest.mark.parametrize("name", ["weight", "buffer"])
def test_one_tensor_that_was_left_behind_is_found(name: str) -> None:
    model, plan = pretended(**{name: "cpu", "b": "cuda:0"}), planned("cuda:0", **{name: "cuda:0", "b": "cuda:0"})
    (finding,) = check_placement(model, plan, cell("cuda:0")).findings
    assert (finding.where, finding.expected, finding.actual) == (name, "cuda:0", "cpu")
    assert finding.hint == LEFT_BEHIND


def test_a_card_without_an_index_is_the_first_one() -> None:
    assert check_placement(pretended(a="cuda"), planned("cuda:0", a="cuda:0"), cell("cuda:0")).passed


def test_of_several_allowed_devices_each_is_right() -> None:
    plan = planned("cuda:0", "cuda:1", a="cuda:0|cuda:1", b="cuda:0|cuda:1")
    assert check_placement(pretended(a="cuda:0", b="cuda:1"), plan, cell("cuda:0", "split")).passed
    (finding,) = check_placement(pretended(a="cuda:0", b="cuda:2"), plan, cell("cuda:0", "auto")).findings
    assert (finding.where, finding.expected, finding.actual) == ("b", "cuda:0 or cuda:1", "cuda:2")


def test_a_tensor_that_is_not_there_is_found() -> None:
    (finding,) = check_placement(pretended(a="cpu"), planned("cpu", a="cpu", buffer="cpu"), cell("cpu")).findings
    assert (finding.where, finding.expected, finding.actual) == ("buffer", "a buffer", "nothing of that name")


@pytest.mark.parametrize("name", ["adapter", "buffer_of_mine"])
def test_a_tensor_that_no_plan_knows_must_be_on_a_device_of_the_cell_too(name: str) -> None:
    plan = planned("cuda:0", a="cuda:0")
    assert check_placement(pretended(a="cuda:0", **{name: "cuda:0"}), plan, cell("cuda:0")).passed
    (finding,) = check_placement(pretended(a="cuda:0", **{name: "cpu"}), plan, cell("cuda:0")).findings
    assert (finding.where, finding.expected, finding.actual) == (name, "cuda:0", "cpu")


@pytest.mark.parametrize("strategy", ["cpu-offload", "disk-offload"])
def test_an_offload_that_offloaded_nothing_is_found(strategy: str) -> None:
    (finding,) = check_placement(
        pretended(a="cuda:0"), planned("cuda:0", a="cuda:0"), cell("cuda:0", strategy)
    ).findings
    assert (finding.where, finding.actual) == ("the model", "nothing offloaded")
    assert finding.expected == f"part of it offloaded ({strategy})"


def test_a_split_that_did_not_split_is_found() -> None:
    plan = planned("cuda:0", a="cuda:0", b="cuda:0")
    (finding,) = check_placement(pretended(a="cuda:0", b="cuda:0"), plan, cell("cuda:0", "split")).findings
    assert (finding.expected, finding.actual) == ("spread over two devices", "all on cuda:0")


def test_an_offloaded_tensor_that_lies_on_the_device_is_found(load: Load, plan: MakePlan) -> None:
    asked = Cell("llama", "cpu", "float32", strategy="disk-offload")
    model = load(asked)
    layer = model.model.layers[1].mlp.up_proj
    layer.weight = nn.Parameter(torch.zeros(layer.weight.shape))
    (finding,) = check_placement(model, plan(model, asked), asked).findings
    assert (finding.where, finding.expected, finding.actual) == ("model.layers.1.mlp.up_proj.weight", "meta", "cpu")


def test_nothing_planned_and_nothing_there_is_hollow() -> None:
    assert check_placement(pretended(), planned("cpu"), cell("cpu")).hollow
