"""Settings of models whose configuration is one of several inside another."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from transformers import Gemma3Config, LlamaConfig, T5GemmaConfig

from pytest_llmdevice.model.settings import count, setting, text_configuration, vocabulary_size


def test_the_text_part_of_a_model_that_sees_says_how_many_tokens_there_are() -> None:
    config = Gemma3Config()
    assert not hasattr(config, "vocab_size")
    assert text_configuration(config) is config.text_config
    assert vocabulary_size(config) == config.text_config.vocab_size
    assert setting(config, "hidden_size") == config.text_config.hidden_size


def test_a_configuration_without_others_in_it_speaks_for_itself() -> None:
    config = LlamaConfig(vocab_size=64)
    assert text_configuration(config) is config
    assert vocabulary_size(config) == 64


def test_of_an_encoder_decoder_the_decoder_writes() -> None:
    config = T5GemmaConfig()
    assert text_configuration(config) is config.decoder


@pytest.mark.parametrize("name", ["language_config", "llm_config", "thinker_config"])
def test_a_text_part_under_another_name_is_found(name: str) -> None:
    inner = SimpleNamespace(vocab_size=64)
    config = SimpleNamespace(audio_config=SimpleNamespace(vocab_size=9), **{name: inner})
    assert text_configuration(config) is inner


def test_what_no_part_says_is_none_and_a_setting_of_the_whole_counts() -> None:
    config = SimpleNamespace(text_config=SimpleNamespace(vocab_size=64), tie_word_embeddings=True)
    assert setting(config, "tie_word_embeddings") is True
    assert count(config, "tie_word_embeddings") is None
    assert setting(config, "hidden_size") is None
    assert vocabulary_size(None) is None
