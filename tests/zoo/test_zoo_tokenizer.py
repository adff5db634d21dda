from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_llmdevice import zoo
from pytest_llmdevice.zoo.families import MAX_LENGTH, VOCAB_SIZE


@pytest.fixture(scope="module")
def tokenizer(zoo_cache: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(zoo.checkpoint("llama", cache=zoo_cache))


@pytest.mark.parametrize("name", zoo.families())
def test_every_family_reads_and_pads_alike(name: str, zoo_cache: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(zoo.checkpoint(name, cache=zoo_cache))
    text = "Grüße, 你好 🙂"
    batch = tokenizer([text, "Hi"], padding=True)
    assert batch.input_ids[0] == list(text.encode())
    assert batch.input_ids[1][-3:] == [tokenizer.pad_token_id, 72, 105]
    assert tokenizer.decode(batch.input_ids[0]) == text


@pytest.mark.parametrize("text", ["Hello, world", "naïve café", "你好世界", "🙂 tab\tnewline\n", "  two  spaces "])
def test_text_comes_back_unchanged(text: str, tokenizer: Any) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_the_id_of_a_byte_is_its_value(tokenizer: Any) -> None:
    text = "".join(map(chr, range(32, 127))) + "é你🙂"
    assert tokenizer(text).input_ids == list(text.encode())


def test_special_tokens_are_distinct_and_never_bytes(tokenizer: Any) -> None:
    ids = {tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}
    assert len(ids) == 3
    assert min(ids) > 255


def test_every_id_of_the_vocabulary_can_be_decoded(tokenizer: Any) -> None:
    assert len(tokenizer) == VOCAB_SIZE
    assert all(token is not None for token in tokenizer.convert_ids_to_tokens(range(VOCAB_SIZE)))
    assert tokenizer.decode([72, 105, *range(256, VOCAB_SIZE)], skip_special_tokens=True) == "Hi"


def test_prompts_of_unequal_length_are_padded_on_the_left(tokenizer: Any) -> None:
    batch = tokenizer(["Hi", "Hello"], padding=True)
    assert batch.input_ids[0] == [tokenizer.pad_token_id] * 3 + [72, 105]
    assert batch.attention_mask == [[0, 0, 0, 1, 1], [1] * 5]


def test_the_longest_input_is_known(tokenizer: Any) -> None:
    assert tokenizer.model_max_length == MAX_LENGTH


def test_a_chat_is_rendered_with_the_turn_of_the_assistant_open(tokenizer: Any) -> None:
    chat = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<s>user: Hi\nassistant:"


def test_all_families_share_one_tokenizer(zoo_cache: Path) -> None:
    files = {(zoo.checkpoint(name, cache=zoo_cache) / "tokenizer.json").read_bytes() for name in zoo.families()}
    assert len(files) == 1
