"""Where a model can be cut: between decoder layers, and never between tied weights."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from pytest_llmdevice import Cell, zoo
from pytest_llmdevice.errors import UnsupportedByLibrary
from pytest_llmdevice.loading.pretrained import layout, skeleton

Checkpoint = Callable[[str], str]

every_family = pytest.mark.parametrize("family", zoo.families())

LAYERS = {"gpt2": "transformer.h", "bloom": "transformer.h", "mamba": "backbone.layers", "t5": "decoder.block"}
LAYERS["opt"] = "model.decoder.layers"


@pytest.fixture
def bones(family: str, checkpoint: Checkpoint) -> nn.Module:
    return skeleton(checkpoint(family), Cell(family, "cpu", "float32"))


def test_a_skeleton_is_made_once_until_the_configuration_changes(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint("llama"), tmp_path / "copy")
    first = skeleton(str(folder), Cell("llama", "cpu", "float32"))
    assert skeleton(str(folder), Cell("llama", "cpu", "float32", strategy="auto")) is first
    other = skeleton(str(folder), Cell("llama", "cpu", "bfloat16"))
    assert {tensor.dtype for tensor in other.parameters()} == {torch.bfloat16}

    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    os.utime(folder / "config.json", (1, 1))

    assert len(tensor_names(skeleton(str(folder), Cell("llama", "cpu", "float32")))) < len(tensor_names(first))


def tensor_names(model: nn.Module) -> list[str]:
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return [name for name, _ in named]


def inside(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


@every_family
def test_the_boundary_falls_between_the_decoder_layers(family: str, bones: nn.Module) -> None:
    stack = LAYERS.get(family, "model.layers")
    found = layout(bones)
    assert found.layers == (f"{stack}.0", f"{stack}.1")
    there = found.split("here", "there")
    assert [part for part, place in there.items() if place == "there"] == [f"{stack}.1"]


@every_family
def test_every_tensor_is_in_exactly_one_part(family: str, bones: nn.Module) -> None:
    parts = layout(bones).parts
    for name in tensor_names(bones):
        assert len([part for part in parts if inside(name, part)]) == 1, name


@every_family
def test_no_tie_crosses_the_boundary(family: str, bones: nn.Module) -> None:
    there = layout(bones).split("here", "there")
    places: dict[int, set[str]] = {}
    for name, parameter in bones.named_parameters(remove_duplicate=False):
        place = next(place for part, place in there.items() if inside(name, part))
        places.setdefault(id(parameter), set()).add(place)
    assert all(len(found) == 1 for found in places.values())
    assert set.union(*places.values()) == {"here", "there"}


@every_family
def test_what_is_not_a_decoder_layer_stays_with_the_embedding(family: str, bones: nn.Module) -> None:
    found = layout(bones)
    there = found.split("here", "there")
    assert {there[part] for part in found.parts if part not in found.layers} == {"here"}
    assert there[found.layers[0]] == "here"


def test_of_two_stacks_the_last_one_is_cut(checkpoint: Checkpoint) -> None:
    there = layout(skeleton(checkpoint("t5"), Cell("t5", "cpu", "float32"))).split("here", "there")
    assert there["encoder.block.1"] == "here"
    assert there["decoder.block.1"] == "there"


class Stack(nn.Module):
    """A model of no library: nothing names its layer class."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 4)
        self.experts = nn.ModuleList(nn.Linear(1, 1) for _ in range(2))
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(layers))


def test_without_the_name_of_a_layer_class_the_stack_with_most_parameters_is_cut() -> None:
    assert layout(Stack(5)).layers == tuple(f"blocks.{number}" for number in range(5))


def test_of_an_odd_number_of_layers_the_larger_half_goes() -> None:
    there = layout(Stack(5)).split("here", "there")
    assert [part for part, place in there.items() if place == "there"] == ["blocks.2", "blocks.3", "blocks.4"]


def test_a_model_without_layers_to_cut_between_is_refused_by_its_class() -> None:
    with pytest.raises(UnsupportedByLibrary, match="Stack has no stack of at least two layers to split between"):
        layout(Stack(1))
