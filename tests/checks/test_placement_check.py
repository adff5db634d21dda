"""The check that every tensor is on its device. Cards are simulated: what is compared are names of devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from covering import in_turn
from torch import nn

from pytest_llmdevice import Cell, simulate, zoo
from pytest_llmdevice.checks import check_placement
from pytest_llmdevice.diagnosis.hints.placement import (
    ADAPTER,
    ATTRIBUTE,
    BUFFER_LEFT_BEHIND,
    CARD_PREFERRED,
    LEFT_BEHIND,
    NEVER_MOVED,
    NOT_FOLLOWED,
    SPREAD,
    STALE,
    WRONG_INDEX,
)
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.oracle.expectations import Expectations, Expected, expectations_of
from pytest_llmdevice.zoo.architectures import checkpoint_of

Load = Callable[[Cell], Any]
MakePlan = Callable[[Any, Cell], Expectations]

pytestmark = pytest.mark.filterwarnings("ignore:Some parameters are on the meta device")


@dataclass
class Placed:
    """A tensor of which only the place matters."""

    device: torch.device
    ndim: int = 2

    @property
    def is_meta(self) -> bool:
        return self.device.type == "meta"


class SimulatedMachines(nn.Module):
    """A model whose tensors are said to be somewhere."""

    def __init__(self, parameters: dict[str, str], buffers: dict[str, str]) -> None:
        super().__init__()
        self.places = {"parameter": parameters, "buffer": buffers}

    def named(self, role: str) -> Iterator[tuple[str, Any]]:
        return ((name, Placed(torch.device(place))) for name, place in self.places[role].items())

    def named_parameters(self, *_: Any, **__: Any) -> Iterator[Any]:
        return self.named("parameter")

    def named_buffers(self, *_: Any, **__: Any) -> Iterator[Any]:
        return self.named("buffer")


def model_on(**places: str) -> Any:
    """Parameters, and buffers where the name begins with `buffer`."""
    buffers = {name: place for name, place in places.items() if name.startswith("buffer")}
    return SimulatedMachines({name: place for name, place in places.items() if name not in buffers}, buffers)


def planned(*devices: str, **tensors: str) -> Expectations:
    """A plan with one entry for each of `tensors`; `devices` are all that the cell may use."""
    expected = tuple(
        Expected(name, "buffer" if name.startswith("buffer") else "parameter", tuple(place.split("|")), "", "")
        for name, place in tensors.items()
    )
    return Expectations(expected, (), (), (), devices)


def cell(device: str, strategy: str = "to") -> Cell:
    return Cell("llama", device, "float16", strategy=strategy)


@pytest.mark.parametrize(("family", "strategy"), in_turn(zoo.families(), ["to", "auto", "disk-offload"]))
def test_a_loaded_model_passes(family: str, strategy: str, loaded: Load, expectations: MakePlan) -> None:
    asked = Cell(family, "cpu", "float32", strategy=strategy)
    model = loaded(asked)
    result = check_placement(model, expectations(model, asked), asked)
    assert result.passed
    places = {"on cpu", "on meta"} if strategy == "disk-offload" else {"on cpu"}
    assert set(result.evidence) == places
    assert sum(map(int, result.evidence.values())) == len(expectations(model, asked).tensors)


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1", "mps", "xpu:0"])
def test_a_model_that_stayed_on_the_cpu_is_found_whole(device: str, load: Load, expectations: MakePlan) -> None:
    model = load(Cell("gpt2", "cpu", "float16"))
    asked = Cell("gpt2", device, "float16")
    result = check_placement(model, expectations(model, asked), asked)
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    assert {finding.where for finding in result.findings} == {name for name, _ in named}
    assert {(finding.expected, finding.actual) for finding in result.findings} == {(device, "cpu")}
    assert {finding.hint for finding in result.findings} == {NEVER_MOVED}


def test_a_model_without_its_tensors_is_one_finding(expectations: MakePlan) -> None:
    asked = cell("cpu")
    (finding,) = check_placement(nn.Module(), expectations(nn.Module(), asked), asked).findings
    assert finding.where == "the model"
    assert finding.actual == "21 of 21 are not there, the first one being model.embed_tokens.weight"


def test_a_right_card_passes_with_a_count_for_each_place() -> None:
    result = check_placement(
        model_on(a="cuda:1", b="cuda:1", buffer="cuda:1"),
        planned("cuda:1", a="cuda:1", b="cuda:1", buffer="cuda:1"),
        cell("cuda:1"),
    )
    assert result.passed
    assert result.evidence == {"on cuda:1": 3}


@pytest.mark.parametrize("name", ["weight", "buffer"])
def test_the_wrong_card_is_found_by_its_index(name: str) -> None:
    model, expectations = (
        model_on(**{name: "cuda:0", "b": "cuda:1"}),
        planned("cuda:1", **{name: "cuda:1", "b": "cuda:1"}),
    )
    (finding,) = check_placement(model, expectations, cell("cuda:1")).findings
    assert (finding.where, finding.expected, finding.actual) == (name, "cuda:1", "cuda:0")
    assert finding.hint == WRONG_INDEX


@pytest.mark.parametrize("name", ["weight", "buffer"])
def test_one_tensor_that_was_left_behind_is_found(name: str) -> None:
    model, expectations = (
        model_on(**{name: "cpu", "b": "cuda:0"}),
        planned("cuda:0", **{name: "cuda:0", "b": "cuda:0"}),
    )
    (finding,) = check_placement(model, expectations, cell("cuda:0")).findings
    assert (finding.where, finding.expected, finding.actual) == (name, "cuda:0", "cpu")
    assert finding.hint == (LEFT_BEHIND if name == "weight" else BUFFER_LEFT_BEHIND)


def test_a_card_without_an_index_is_the_first_one() -> None:
    assert check_placement(model_on(a="cuda"), planned("cuda:0", a="cuda:0"), cell("cuda:0")).passed


def test_of_several_allowed_devices_each_is_right() -> None:
    expectations = planned("cuda:0", "cuda:1", a="cuda:0|cuda:1", b="cuda:0|cuda:1")
    assert check_placement(model_on(a="cuda:0", b="cuda:1"), expectations, cell("cuda:0", "split")).passed
    (finding,) = check_placement(model_on(a="cuda:0", b="cuda:2"), expectations, cell("cuda:0", "auto")).findings
    assert (finding.where, finding.expected, finding.actual) == ("b", "cuda:0 or cuda:1", "cuda:2")


def test_a_tensor_that_is_not_there_is_found() -> None:
    (finding,) = check_placement(model_on(a="cpu"), planned("cpu", a="cpu", buffer="cpu"), cell("cpu")).findings
    assert (finding.where, finding.expected, finding.actual) == ("buffer", "a buffer", "nothing of that name")


@pytest.mark.parametrize("name", ["adapter", "buffer_of_mine"])
def test_a_tensor_that_no_plan_knows_must_be_on_a_device_of_the_cell_too(name: str) -> None:
    expectations = planned("cuda:0", a="cuda:0")
    assert check_placement(model_on(a="cuda:0", **{name: "cuda:0"}), expectations, cell("cuda:0")).passed
    (finding,) = check_placement(model_on(a="cuda:0", **{name: "cpu"}), expectations, cell("cuda:0")).findings
    assert (finding.where, finding.expected, finding.actual) == (name, "cuda:0", "cpu")


@pytest.mark.parametrize("strategy", ["cpu-offload", "disk-offload"])
def test_an_offload_that_offloaded_nothing_is_found(strategy: str) -> None:
    (finding,) = check_placement(model_on(a="cuda:0"), planned("cuda:0", a="cuda:0"), cell("cuda:0", strategy)).findings
    assert (finding.where, finding.actual) == ("the model", "nothing offloaded")
    assert finding.expected == f"part of it offloaded ({strategy})"


def test_a_split_that_did_not_split_is_found() -> None:
    expectations = planned("cuda:0", a="cuda:0", b="cuda:0")
    (finding,) = check_placement(model_on(a="cuda:0", b="cuda:0"), expectations, cell("cuda:0", "split")).findings
    assert (finding.expected, finding.actual) == ("spread over two devices", "all on cuda:0")


def test_an_offloaded_tensor_that_lies_on_the_device_is_found(load: Load, expectations: MakePlan) -> None:
    asked = Cell("llama", "cpu", "float32", strategy="disk-offload")
    model = load(asked)
    layer = model.model.layers[1].mlp.up_proj
    layer.weight = nn.Parameter(torch.zeros(layer.weight.shape))
    (finding,) = check_placement(model, expectations(model, asked), asked).findings
    assert (finding.where, finding.expected, finding.actual) == ("model.layers.1.mlp.up_proj.weight", "meta", "cpu")


def test_nothing_planned_and_nothing_there_is_hollow() -> None:
    assert check_placement(model_on(), planned("cpu"), cell("cpu")).hollow


def test_a_cpu_cell_that_went_to_a_card_is_told(expectations: MakePlan, load: Load) -> None:
    with simulate("cuda:1"):
        model = load(Cell("llama", "cuda:0", "float32"))
        result = check_placement(model, expectations(model, cell("cpu")), cell("cpu"))
    assert {(finding.actual, finding.hint) for finding in result.findings} == {("cuda:0", CARD_PREFERRED)}


@pytest.mark.parametrize("strategy", ["to", "device-map"])
def test_a_map_that_overrides_the_card_that_was_asked_for_is_told(
    strategy: str, load: Load, expectations: MakePlan
) -> None:
    with simulate("cuda:2"):
        model = load(Cell("llama", "cuda:0", "float16", strategy="auto"))
        asked = cell("cuda:1", strategy)
        result = check_placement(model, expectations(model, asked), asked)
    assert {(finding.actual, finding.hint) for finding in result.findings} == {("cuda:0", SPREAD)}
    assert "model.embed_tokens.weight" in {finding.where for finding in result.findings}


def test_a_model_that_was_moved_after_its_dispatch_has_a_stale_map(load: Load, expectations: MakePlan) -> None:
    with simulate("cuda:2"):
        asked = Cell("llama", "cuda:0", "float16", strategy="auto")
        model = load(asked)
        super(type(model), model).cuda(0)
        findings = check_placement(model, expectations(model, asked), asked).findings
    first = findings[0]
    assert (first.where, first.expected, first.actual) == ("model.layers.1.self_attn.q_proj.weight", "cuda:1", "cuda:0")


def test_a_hook_that_sends_inputs_elsewhere_is_found(load: Load, expectations: MakePlan) -> None:
    with simulate("cuda:2"):
        asked = Cell("llama", "cuda:0", "float16", strategy="auto")
        model = load(asked)
        model.model.layers[1].mlp.up_proj._hf_hook.execution_device = 0
        (finding,) = check_placement(model, expectations(model, asked), asked).findings
    assert finding.where == "model.layers.1.mlp.up_proj.weight"
    assert finding.expected == "cuda:0, where the hook of model.layers.1.mlp.up_proj sends its inputs"
    assert (finding.actual, finding.hint) == ("cuda:1", STALE)


@pytest.mark.filterwarnings("ignore")
def test_a_tied_head_that_a_map_put_on_another_card_is_found(
    checkpoint: Callable[[str], str], expectations: MakePlan
) -> None:
    from transformers import AutoModelForCausalLM

    parts = {"model.embed_tokens": 0, "model.layers": 0, "model.rotary_emb": 0, "model.norm": 1, "lm_head": 1}
    with simulate("cuda:2"):
        asked = Cell("qwen2", "cuda:0", "float32", strategy="split")
        model = AutoModelForCausalLM.from_pretrained(checkpoint("qwen2"), device_map=parts)
        findings = check_placement(model, expectations(model, asked), asked).findings
    assert [(finding.where, finding.expected, finding.actual) for finding in findings] == [
        ("model.embed_tokens.weight", "cuda:0", "cuda:1")
    ]


def test_a_disk_offload_that_stayed_in_memory_is_found(load: Load, expectations: MakePlan) -> None:
    with simulate("cuda:1"):
        model = load(Cell("llama", "cuda:0", "float16", strategy="cpu-offload"))
        asked = cell("cuda:0", "disk-offload")
        (finding,) = check_placement(model, expectations(model, asked), asked).findings
    assert (finding.expected, finding.actual) == ("its data in a file on disk (disk-offload)", "the CPU's memory")
    assert finding.hint == NOT_FOLLOWED


def test_a_model_that_accelerate_carries_whole_counts_as_offloaded(load: Load, expectations: MakePlan) -> None:
    from accelerate import cpu_offload_with_hook

    with simulate("cuda:1"):
        asked = cell("cuda:0", "cpu-offload")
        model, _ = cpu_offload_with_hook(load(cell("cpu")), execution_device=torch.device("cuda:0"))
        assert check_placement(model, expectations(model, asked), asked).passed


@pytest.mark.parametrize("hint", [ADAPTER, ATTRIBUTE])
def test_what_is_beside_the_model_is_told_from_the_model(hint: Any, load: Load, expectations: MakePlan) -> None:
    with simulate("cuda:1"):
        model = load(cell("cuda:0"))
        if hint is ADAPTER:
            model.model.layers[0].adapter = nn.Linear(2, 2, bias=False)
        else:
            model.model.layers[0].adapter = torch.zeros(2)
        (finding,) = check_placement(model, expectations(model, cell("cuda:0")), cell("cuda:0")).findings
    assert finding.where.startswith("model.layers.0.adapter")
    assert finding.hint is hint


@pytest.mark.parametrize(("shape", "wrong"), [((), False), ((1,), True)])
def test_a_single_number_of_the_cpu_may_be_beside_a_layer_on_a_card(
    shape: tuple[int, ...], wrong: bool, load: Load, expectations: MakePlan
) -> None:
    cell = Cell("llama", "cuda:1", "float32", simulated=True)
    with simulate("cuda:2"):
        model = load(cell)
        layer = model.model.layers[0].mlp.up_proj
        layer.register_buffer("input_scale", torch.ones(shape))
        found = [finding.where for finding in check_placement(model, expectations(model, cell), cell).findings]
    assert found == (["model.layers.0.mlp.up_proj.input_scale"] if wrong else [])


def test_a_number_that_a_map_leaves_out_may_stay_on_the_cpu() -> None:
    # Its layers are split, and its normalizer, a number, is directly in the module that holds them.
    checkpoint = str(checkpoint_of("recurrent_gemma"))
    asked = Cell("path:recurrent_gemma", "cuda:0", "bfloat16", strategy="auto", simulated=True)
    with simulate("cuda:2"):
        model = BuiltinTarget().load(checkpoint, asked)
        result = check_placement(model, expectations_of(model, checkpoint, asked), asked)
    assert result.findings == ()
    assert result.evidence["on cpu"] == 1


def test_a_table_that_a_map_leaves_out_must_not_stay_on_the_cpu(load: Load, expectations: MakePlan) -> None:
    asked = Cell("llama", "cuda:0", "float16", strategy="auto", simulated=True)
    with simulate("cuda:2"):
        model = load(asked)
        del model.hf_device_map["model.rotary_emb"]
        model.model.rotary_emb.inv_freq = model.model.rotary_emb.inv_freq.cpu()
        found = {
            finding.where: finding.actual
            for finding in check_placement(model, expectations(model, asked), asked).findings
        }
    assert found == {"model.rotary_emb.inv_freq": "cpu"}
