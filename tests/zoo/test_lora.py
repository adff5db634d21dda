"""Adapters for the models of the zoo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pytest_llmdevice import zoo
from pytest_llmdevice.errors import CheckpointError
from pytest_llmdevice.loading.adapters import base_of, is_adapter
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.zoo.lora import lora


@pytest.mark.parametrize("family", current().names("family"))
def test_every_family_has_one_that_is_trained(family: str) -> None:
    folder = zoo.checkpoint(f"{family}+lora")
    assert is_adapter(folder)
    assert base_of(str(folder)) == str(zoo.checkpoint(family))
    tensors = load_file(folder / "adapter_model.safetensors")
    assert tensors
    assert all(bool(tensor.any()) for tensor in tensors.values())


def test_a_model_without_a_layer_for_it_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    save_file({"odd.weight": torch.ones(2, 2)}, base / "model.safetensors")
    with pytest.raises(CheckpointError, match="no layer of this model is called q_proj"):
        lora(base)


@pytest.mark.parametrize(
    ("config", "words"),
    [({}, "does not name the model"), ({"base_model_name_or_path": "org/none"}, "names the base 'org/none'")],
)
def test_an_adapter_whose_base_is_not_here_is_refused(config: dict[str, str], words: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=words):
        base_of(str(tmp_path))
