"""Tiny checkpoints of architectures that the zoo has no family for, made by the generic reducer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoTokenizer

from pytest_llmdevice.errors import ConfigurationError, UnsupportedByLibrary
from pytest_llmdevice.loading.pretrained import auto_class, from_pretrained
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.zoo.architectures import architecture, architectures, build_architecture, checkpoint_of, family_of
from pytest_llmdevice.zoo.exceptions import ADJUSTMENTS, CANNOT, REVISIONS
from pytest_llmdevice.zoo.families import VOCAB_SIZE
from pytest_llmdevice.zoo.fitted import why_unclear
from pytest_llmdevice.zoo.reducer import FIRST_RESERVED, reduced
from pytest_llmdevice.zoo.sizes import HIDDEN

KINDS = {
    "roberta": "positions behind the padding token, told to be a decoder",
    "bart-decoder": "the decoder of an encoder-decoder by itself",
    "fsmt": "an encoder-decoder with two vocabularies",
    "jamba": "layers with a state, attention and experts in turn",
    "gemma3": "a text part beside one that sees",
    "mllama": "a class that takes the configuration of the text part out of the whole",
    "gpt_oss": "experts and sinks",
    "deepseek_v4": "latent attention that is compressed in several ways",
    "qwen3_next": "linear attention",
    "mamba2": "a state, and no attention",
    "gemma3n_text": "layers that read the keys of others",
    "voxtral": "a decoder that is registered with the encoder-decoders",
    "xlnet": "two streams of attention",
}

every_kind = pytest.mark.parametrize("name", KINDS)


@every_kind
def test_a_checkpoint_of_any_kind_is_small_loads_without_gaps_and_says_something(name: str, zoo_cache: Path) -> None:
    folder = checkpoint_of(name, cache=zoo_cache)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6_000_000
    config = AutoConfig.from_pretrained(folder)
    model, info = auto_class(config).from_pretrained(folder, output_loading_info=True)
    assert type(model).__name__ == architecture(name).model_class
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert len(AutoTokenizer.from_pretrained(folder)) == VOCAB_SIZE
    ids = torch.tensor([list(b"The cat sat")])
    tokens = model.eval().generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, min_new_tokens=4
    )
    assert tokens.shape[1] == 4 + (1 if config.is_encoder_decoder else ids.shape[1])


@every_kind
def test_every_token_before_it_has_an_influence_on_what_is_said(name: str, zoo_cache: Path) -> None:
    model: Any = from_pretrained(str(checkpoint_of(name, cache=zoo_cache)), Cell(name, "cpu", "float32"))
    texts = torch.tensor([list(b"Once upon a time"), list(b"Once upon b time")])
    more = {"decoder_input_ids": texts[:1].expand(2, -1)} if model.config.is_encoder_decoder else {}
    with torch.inference_mode():
        last = model(input_ids=texts, attention_mask=torch.ones_like(texts), **more).logits[:, -1]
    assert float((last[0] - last[1]).norm() / last[0].norm()) > 0.01


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    family = family_of(architecture("jamba"))
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        build_architecture(family, folder)
    one, two = ((folder / "model.safetensors").read_bytes() for folder in folders)
    assert one == two


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("gemma3_text", {"sliding_attention", "full_attention"}),
        ("qwen3_next", {"linear_attention", "full_attention"}),
        ("jamba", {"linear_attention", "full_attention"}),
        ("nemotron_h", {"linear_attention", "moe", "full_attention", "mlp"}),
    ],
)
def test_one_layer_of_each_kind_stays(name: str, kinds: set[str], zoo_cache: Path) -> None:
    config = AutoConfig.from_pretrained(checkpoint_of(name, cache=zoo_cache))
    assert set(getattr(config, "layer_types", None) or config.layers_block_type) == kinds


def test_numbers_of_layers_are_numbered_anew() -> None:
    config = CONFIG_MAPPING["mllama"]().text_config
    assert config.cross_attention_layers[:2] == [3, 8]
    small = reduced(config)
    assert (small["num_hidden_layers"], small["cross_attention_layers"]) == (2, [1])


def test_nested_configurations_are_reduced_too() -> None:
    small = reduced(CONFIG_MAPPING["gemma3"]())
    assert small["text_config"]["hidden_size"] == small["vision_config"]["hidden_size"] == HIDDEN
    assert FIRST_RESERVED <= small["image_token_id" if "image_token_id" in small else "image_token_index"] < VOCAB_SIZE


def test_there_are_all_that_transformers_registers() -> None:
    from transformers.models.auto import modeling_auto

    known = architectures()
    causal = [one for one in known.values() if one.kind == "causal"]
    assert len(causal) == len(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert {"llama", "bart", "bart-decoder", "t5", "gemma3", "gemma3_text"} <= known.keys()
    assert known["bart"].kind == "seq2seq"


def test_what_cannot_be_built_is_refused_with_the_reason() -> None:
    with pytest.raises(UnsupportedByLibrary, match=r"^no checkpoint of gemma4_assistant can be built: an assist"):
        checkpoint_of("gemma4_assistant")
    with pytest.raises(ConfigurationError, match=r"has no architecture 'lamma' for text; did you mean 'llama'\?"):
        checkpoint_of("lamma")


@pytest.mark.parametrize("name", ["mt5", "umt5"])
def test_attention_that_does_not_divide_its_scores_turns_no_choice_by_rounding(name: str, zoo_cache: Path) -> None:
    assert why_unclear(checkpoint_of(name, cache=zoo_cache)) is None


def test_every_exception_is_about_something_that_there_is_and_says_why() -> None:
    assert {*ADJUSTMENTS, *REVISIONS} <= {*CONFIG_MAPPING}
    assert {*CANNOT} <= {*architectures()}
    reasons = [*(entry.reason for entry in ADJUSTMENTS.values()), *CANNOT.values()]
    assert [reason for reason in reasons if not re.search(r"\w+ \w+ \w+", reason)] == []
