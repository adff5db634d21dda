from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_llmdevice import zoo
from pytest_llmdevice.errors import ConfigurationError, UnsupportedByLibrary
from pytest_llmdevice.matrix import vocabulary
from pytest_llmdevice.zoo.build import build

every_family = pytest.mark.parametrize("name", zoo.families())


def test_the_families_are_those_a_matrix_can_name() -> None:
    assert zoo.families() == vocabulary.models()


def test_an_unknown_family_is_refused_with_the_list_of_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown model 'lama'; did you mean 'llama'"):
        zoo.checkpoint("lama")


def test_a_family_that_the_installed_transformers_lacks_is_reported_as_such(tmp_path: Path) -> None:
    unknown = zoo.Family("future", "NoSuchConfig", {})
    with pytest.raises(UnsupportedByLibrary, match=r"transformers \S+ has no NoSuchConfig"):
        build(unknown, tmp_path)


def test_importing_the_zoo_imports_nothing_heavy() -> None:
    heavy = ["torch", "transformers", "huggingface_hub", "filelock", "platformdirs", "safetensors"]
    code = f"import sys, pytest_llmdevice.zoo; print([name for name in {heavy} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


@every_family
def test_a_checkpoint_is_small_and_holds_no_pickle(name: str, zoo_cache: Path) -> None:
    files = [path for path in zoo.checkpoint(name, cache=zoo_cache).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".jinja"}


@every_family
def test_layers_that_are_quantized_have_the_sizes_that_every_kernel_takes(name: str, zoo_cache: Path) -> None:
    from safetensors.torch import load_file

    # bitsandbytes on processors with AVX512-BF16: outputs in multiples of 32, inputs in multiples of a block.
    projections = {
        key: tuple(tensor.shape)
        for key, tensor in load_file(zoo.checkpoint(name, cache=zoo_cache) / "model.safetensors").items()
        if key.endswith("proj.weight") or "proj_with" in key or ".query_key_value." in key
    }
    assert {key: shape for key, shape in projections.items() if len(shape) == 2 and shape[0] % 32} == {}


@every_family
def test_weights_and_configuration_say_float32(name: str, zoo_cache: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = zoo.checkpoint(name, cache=zoo_cache)
    dtypes = {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()}
    assert dtypes == {torch.float32}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config.get("dtype", config.get("torch_dtype")) == "float32"


@every_family
def test_every_weight_is_found_and_none_is_left_over(name: str, zoo_cache: Path, single_thread: None) -> None:
    import transformers

    auto_class = getattr(transformers, zoo.family(name).auto_class)
    _, info = auto_class.from_pretrained(zoo.checkpoint(name, cache=zoo_cache), output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


@every_family
def test_there_are_two_decoder_layers_to_split_between(name: str, load: Callable[..., Any]) -> None:
    model = load(name)
    config = model.config
    assert (config.num_decoder_layers if zoo.family(name).kind == "seq2seq" else config.num_hidden_layers) >= 2


@every_family
def test_the_facts_about_a_family_are_those_of_its_model(name: str, load: Callable[..., Any]) -> None:
    facts, model = zoo.family(name), load(name)
    assert type(model.config).__name__ == facts.config_class
    assert bool(model.config.is_encoder_decoder) == (facts.kind == "seq2seq")
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied == facts.tied
    assert any(".experts." in parameter for parameter, _ in model.named_parameters()) == facts.moe


@every_family
def test_greedy_is_the_default_and_token_ids_are_those_of_the_tokenizer(
    name: str, zoo_cache: Path, load: Callable[..., Any]
) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(zoo.checkpoint(name, cache=zoo_cache))
    model = load(name)
    assert model.generation_config.do_sample is False
    for ids in (model.config, model.generation_config):
        assert ids.pad_token_id == tokenizer.pad_token_id
        assert ids.bos_token_id == tokenizer.bos_token_id
        assert ids.eos_token_id == tokenizer.eos_token_id
    assert model.config.vocab_size == len(tokenizer)


def test_deepseek_has_a_dense_layer_and_one_of_experts(load: Callable[..., Any]) -> None:
    layers = load("deepseek-v3").model.layers
    assert [hasattr(layer.mlp, "experts") for layer in layers] == [False, True]


def test_linear_widths_are_multiples_of_the_4_bit_block(load: Callable[..., Any]) -> None:
    import torch

    exceptions = set()
    for name in zoo.families():
        for module_name, module in load(name).named_modules():
            if isinstance(module, torch.nn.Linear) and module.in_features % 64:
                exceptions.add((name, module_name.rpartition(".")[2]))
    assert exceptions == {("mamba", "dt_proj")}
