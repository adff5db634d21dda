"""How long a text a model can read, of models that count positions in different ways."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from pytest_llmdevice.model.lengths import (
    NO_LIMIT,
    first_position,
    plain_rotary,
    position_limit,
    sliding_window,
    unscaled_length,
)

SMALL = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
ENCODER_DECODER = {
    "vocab_size": 64,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
}


def made(config_class: str, **arguments: Any) -> Any:
    config = getattr(transformers, config_class)(**arguments)
    auto: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return auto.from_config(config).eval()


def reads(model: Any, length: int) -> bool:
    """Whether `model` reads a text of `length` tokens, none of them padding."""
    ids = torch.full((1, length), 5)
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    try:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), **more)
    except (IndexError, RuntimeError, ValueError):
        return False
    return True


LEARNED = {
    "bert": ("BertConfig", {**SMALL, "max_position_embeddings": 40, "is_decoder": True}, 40),
    "roberta, behind its padding token": (
        "RobertaConfig",
        {**SMALL, "max_position_embeddings": 40, "is_decoder": True, "pad_token_id": 1},
        38,
    ),
    "roberta, with the padding token far behind": (
        "RobertaConfig",
        {**SMALL, "max_position_embeddings": 40, "is_decoder": True, "pad_token_id": 20},
        19,
    ),
    "camembert": (
        "CamembertConfig",
        {**SMALL, "max_position_embeddings": 40, "is_decoder": True, "pad_token_id": 1},
        38,
    ),
    "opt, at 2": (
        "OPTConfig",
        {**SMALL, "ffn_dim": 16, "word_embed_proj_dim": 16, "max_position_embeddings": 40},
        40,
    ),
    "biogpt, at 2": ("BioGptConfig", {**SMALL, "max_position_embeddings": 40}, 40),
    "bart, at 2": ("BartConfig", {**ENCODER_DECODER, "max_position_embeddings": 40}, 40),
    "whisper's decoder, by its own name": (
        "WhisperConfig",
        {**ENCODER_DECODER, "max_target_positions": 40, "is_encoder_decoder": False, "pad_token_id": 1},
        40,
    ),
    "led, of which the decoder has the shorter table": (
        "LEDConfig",
        {
            **ENCODER_DECODER,
            "attention_window": 8,
            "max_encoder_position_embeddings": 80,
            "max_decoder_position_embeddings": 40,
        },
        40,
    ),
    "gpt2": ("GPT2Config", {"vocab_size": 64, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 40}, 40),
}


TAKE_NO_POSITIONS = {"bart", "led", "whisper's decoder"}


@pytest.mark.parametrize("name", LEARNED)
def test_the_limit_is_the_longest_text_that_a_model_with_learned_positions_reads(name: str) -> None:
    config_class, arguments, limit = LEARNED[name]
    model = made(config_class, **arguments)
    assert position_limit(model) == unscaled_length(model) == limit
    assert reads(model, limit)
    assert not reads(model, limit + 1)


@pytest.mark.parametrize("name", [name for name in LEARNED if name.partition(",")[0] not in TAKE_NO_POSITIONS])
def test_positions_that_are_given_begin_where_the_class_begins_by_itself(name: str) -> None:
    config_class, arguments, _ = LEARNED[name]
    model = made(config_class, **arguments)
    ids = torch.tensor([[5, 6, 7]])
    given = torch.arange(3)[None] + first_position(model)
    torch.testing.assert_close(model(ids, position_ids=given).logits, model(ids).logits)


def test_alibi_relative_positions_and_states_have_no_limit() -> None:
    bloom = made("BloomConfig", vocab_size=64, hidden_size=16, n_layer=1, n_head=2)
    t5 = made(
        "T5Config", vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    mamba = made("MambaConfig", vocab_size=64, hidden_size=16, state_size=4, num_hidden_layers=1)
    assert [position_limit(model) for model in (bloom, t5, mamba)] == [NO_LIMIT] * 3


def test_rotary_positions_that_are_scaled_end_where_the_plain_ones_do() -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4, "original_max_position_embeddings": 32}
    scaled = made("LlamaConfig", **SMALL, max_position_embeddings=64, rope_parameters=rope)
    plain = made("LlamaConfig", **SMALL, max_position_embeddings=64)
    assert (position_limit(scaled), unscaled_length(scaled), plain_rotary(scaled)) == (64, 32, False)
    assert (position_limit(plain), unscaled_length(plain), plain_rotary(plain)) == (64, 64, True)


def test_windows_go_by_several_names_and_may_be_absent() -> None:
    def model(**settings: Any) -> Any:
        return SimpleNamespace(config=SimpleNamespace(**settings))

    assert sliding_window(model(sliding_window=16)) == 16
    assert sliding_window(model(attention_chunk_size=8)) == 8
    assert sliding_window(model(sliding_window=None)) is None
    assert sliding_window(model()) is None


def test_a_table_of_patches_of_a_picture_is_no_limit_of_texts() -> None:
    text = {**SMALL, "max_position_embeddings": 64, "head_dim": 8, "num_key_value_heads": 2}
    vision = {**SMALL, "image_size": 28, "patch_size": 14}
    del vision["vocab_size"]
    model = made(
        "Gemma3Config",
        text_config={**text, "model_type": "gemma3_text"},
        vision_config={**vision, "model_type": "siglip_vision_model"},
        mm_tokens_per_image=4,
        image_token_index=60,
    )
    assert position_limit(model) == 64
