"""Traits: each changes what it says, several at once, and what is built loads without gaps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.zoo import checkpoint
from pytest_llmdevice.zoo.fits import refuse_unfit
from pytest_llmdevice.zoo.traits import TRAITS
from pytest_llmdevice.zoo.traits.tokens import ends_said


@pytest.fixture(scope="module")
def several(zoo_cache: Path) -> Path:
    traits = "no-pad~right~sampling~chat~rope-llama3~epsilon~eos-list~stored-otherwise~sharded"
    return checkpoint(f"llama~{traits}", cache=zoo_cache)


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def test_several_traits_are_there_at_once(several: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(several)
    assert tokenizer.pad_token is None
    assert tokenizer.padding_side == "right"
    assert "You are a helpful assistant" in tokenizer.apply_chat_template(
        [{"role": "user", "content": "a"}], tokenize=False
    )
    generation = read(several, "generation_config.json")
    assert generation["do_sample"] is True
    assert "pad_token_id" not in generation
    config: Any = AutoConfig.from_pretrained(several)
    assert config.rope_parameters["rope_type"] == "llama3"
    assert config.rms_norm_eps == 0.05
    assert config.pad_token_id is None
    assert config.eos_token_id == generation["eos_token_id"]
    assert config.eos_token_id[0] == 258
    assert len(config.eos_token_id) == 3


def test_weights_are_in_several_files_in_another_dtype_than_the_configuration_says(several: Path) -> None:
    files = sorted(several.glob("*.safetensors"))
    assert len(files) == 3
    assert {tensor.dtype for file in files for tensor in load_file(file).values()} == {torch.bfloat16}
    assert read(several, "config.json")["dtype"] == "float32"
    untyped: Any = AutoModelForCausalLM
    _, info = untyped.from_pretrained(several, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_each_end_token_is_the_first_of_some_row() -> None:
    rows = [[1, 2, 3, 4], [4, 3, 2, 1], [2, 4, 1, 3]]
    ends = ends_said(rows)
    first = {next(token for token in row if token in ends) for row in rows}
    assert first == set(ends)
    assert len(ends) == 2


def test_where_all_rows_are_alike_one_token_ends_them() -> None:
    assert len(ends_said([[1, 1], [1, 1]])) == 1


def test_a_trait_that_the_class_of_the_configuration_refuses_is_refused_before_anything_is_built() -> None:
    with pytest.raises(ConfigurationError, match=r"phi3 cannot have the trait 'rope-llama3': Phi3Config refuses it"):
        refuse_unfit("phi3~rope-llama3")


@pytest.mark.parametrize("trait", TRAITS, ids=lambda trait: trait.name)
def test_each_says_in_a_sentence_why_real_checkpoints_have_it_and_where(trait: Any) -> None:
    assert trait.why.endswith(".")
    assert trait.source.startswith("https://")
    assert trait.description
    assert trait.models
