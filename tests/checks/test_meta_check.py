"""The check that no tensor was left without data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_llmdevice import Cell, zoo
from pytest_llmdevice.checks import check_meta
from pytest_llmdevice.diagnosis.hints.placement import NO_DATA

Load = Callable[[Cell], Any]

LLAMA = Cell("llama", "cpu", "float32")

pytestmark = pytest.mark.filterwarnings("ignore:Some parameters are on the meta device")


@pytest.mark.parametrize("family", zoo.families())
def test_a_loaded_model_passes(family: str, loaded: Load) -> None:
    result = check_meta(loaded(Cell(family, "cpu", "float32")))
    assert result.passed
    assert int(result.evidence["tensors"]) > 10
    assert result.evidence["offloaded"] == 0


@pytest.mark.parametrize("family", zoo.families())
def test_an_offloaded_model_passes_and_its_meta_tensors_are_counted(family: str, loaded: Load) -> None:
    model = loaded(Cell(family, "cpu", "float32", strategy="disk-offload"))
    result = check_meta(model)
    assert result.passed
    assert result.evidence["offloaded"] == sum(parameter.is_meta for parameter in model.parameters()) > 0


def test_a_parameter_left_on_meta_is_found(load: Load) -> None:
    model = load(LLAMA)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.to("meta"))
    (finding,) = check_meta(model).findings
    assert (finding.where, finding.expected) == ("lm_head.weight", "parameter with data")
    assert finding.actual == "meta, and no hook that would bring it"


def test_a_buffer_left_on_meta_is_found(load: Load) -> None:
    model = load(LLAMA)
    model.model.rotary_emb.inv_freq = model.model.rotary_emb.inv_freq.to("meta")
    (finding,) = check_meta(model).findings
    assert (finding.where, finding.expected) == ("model.rotary_emb.inv_freq", "buffer with data")


def test_a_tied_tensor_on_meta_is_found_under_each_of_its_names(load: Load) -> None:
    model = load(Cell("qwen2", "cpu", "float32"))
    model.model.embed_tokens.weight = nn.Parameter(model.model.embed_tokens.weight.to("meta"))
    model.tie_weights()
    assert [finding.where for finding in check_meta(model).findings] == ["model.embed_tokens.weight", "lm_head.weight"]


def test_an_offloaded_parameter_that_lost_its_hook_is_found(load: Load) -> None:
    model = load(Cell("llama", "cpu", "float32", strategy="disk-offload"))
    del model.model.layers[1].mlp.up_proj._hf_hook
    assert [finding.where for finding in check_meta(model).findings] == ["model.layers.1.mlp.up_proj.weight"]


def test_a_hook_that_offloads_nothing_is_no_excuse(load: Load) -> None:
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    model = load(LLAMA)
    add_hook_to_module(model.lm_head, AlignDevicesHook(execution_device="cpu"))
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.to("meta"))
    assert [finding.where for finding in check_meta(model).findings] == ["lm_head.weight"]


def test_a_hook_that_offloads_parameters_does_not_bring_a_buffer(load: Load) -> None:
    model = load(Cell("llama", "cpu", "float32", strategy="disk-offload"))
    model.model.layers[1].mlp.up_proj.register_buffer("scale", torch.ones(1, device="meta"))
    assert [finding.where for finding in check_meta(model).findings] == ["model.layers.1.mlp.up_proj.scale"]


def test_a_model_without_tensors_is_hollow() -> None:
    assert check_meta(nn.ReLU()).hollow


def test_a_model_that_is_all_on_meta_is_found_whole() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert len(check_meta(model).findings) == 7


def test_offloaded_data_of_another_name_is_found(load: Load) -> None:
    model = load(Cell("llama", "cpu", "float32", strategy="disk-offload"))
    model.model.layers[1].mlp.up_proj._hf_hook.weights_map.prefix = "layers.1.mlp.up_proj."
    (finding,) = check_meta(model).findings
    assert (finding.where, finding.hint) == ("model.layers.1.mlp.up_proj.weight", NO_DATA)
    assert finding.actual == "meta, and its hook has nothing of the name layers.1.mlp.up_proj.weight"


def test_an_offload_folder_that_is_gone_is_found(load: Load, tmp_path: Path) -> None:
    from accelerate import disk_offload

    model = load(LLAMA)
    disk_offload(model, str(tmp_path), execution_device=torch.device("cpu"))
    assert check_meta(model).passed
    (tmp_path / "lm_head.weight.dat").unlink()
    (finding,) = check_meta(model).findings
    assert (finding.where, finding.hint) == ("lm_head.weight", NO_DATA)
    assert finding.actual.endswith("lm_head.weight.dat is not there")
