"""The prompts of the suite, and the tokenizer that makes ids of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.zoo import prompts as zoo_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXTS: Final = tuple(text for text in zoo_prompts.TEXTS if len(text) in {5, 16, 24})
"""Prompts that the zoo's checkpoints continue with clear choices; of unequal length, so that a batch is padded, and
the longest beyond the zoo's sliding windows."""


def load_tokenizer(checkpoint: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer in the folder `checkpoint`, padding on the left, never from the network."""
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        str(checkpoint), local_files_only=True, padding_side="left"
    )
    return tokenizer


def encode(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """`TEXTS` as lists of token ids."""
    return [list(tokenizer(text)["input_ids"]) for text in TEXTS]
