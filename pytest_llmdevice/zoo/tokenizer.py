"""Builds the byte-level tokenizer that all families share: the id of a byte is its value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.zoo.families import BOS_TOKEN_ID, EOS_TOKEN_ID, MAX_LENGTH, PAD_TOKEN_ID, VOCAB_SIZE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD_TOKEN: Final = "<pad>"  # noqa: S105 - tokens of text, here and below
BOS_TOKEN: Final = "<s>"  # noqa: S105
EOS_TOKEN: Final = "</s>"  # noqa: S105
UNK_TOKEN: Final = "<unk>"  # noqa: S105
"""Never produced, because every byte is known. It is defined because transformers 5 would add its own for `qwen2`."""

_SPECIAL_IDS: Final = {
    PAD_TOKEN: PAD_TOKEN_ID,
    BOS_TOKEN: BOS_TOKEN_ID,
    EOS_TOKEN: EOS_TOKEN_ID,
    UNK_TOKEN: EOS_TOKEN_ID + 1,
}

CHAT_TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ message['role'] }}: {{ message['content'] }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer of `VOCAB_SIZE` tokens: 256 bytes, pad, bos, eos, unk, and reserved ones for the rest.

    It adds no special tokens by itself, and pads on the left, as generation needs.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {character: byte for byte, character in _byte_characters().items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    reserved = [f"<|reserved_{index}|>" for index in range(VOCAB_SIZE - len(vocabulary) - len(_SPECIAL_IDS))]
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in [*_SPECIAL_IDS, *reserved]])
    assert {text: tokenizer.token_to_id(text) for text in _SPECIAL_IDS} == _SPECIAL_IDS
    assert tokenizer.get_vocab_size() == VOCAB_SIZE

    options: dict[str, Any] = {
        "pad_token": PAD_TOKEN,
        "bos_token": BOS_TOKEN,
        "eos_token": EOS_TOKEN,
        "unk_token": UNK_TOKEN,
        "padding_side": "left",
        "model_max_length": MAX_LENGTH,
        "clean_up_tokenization_spaces": False,
    }
    untyped: Any = PreTrainedTokenizerFast
    fast: PreTrainedTokenizerFast = untyped(tokenizer_object=tokenizer, **options)
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _byte_characters() -> dict[int, str]:
    """Byte value -> the printable character that represents it in a byte-level vocabulary.

    This is the GPT-2 alphabet, which `tokenizers.pre_tokenizers.ByteLevel` uses: printable Latin-1 bytes represent
    themselves, the others are represented by the code points from 256 on, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
