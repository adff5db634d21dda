"""The prompts of the suite, and the tokenizer that makes ids of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXTS: Final = ("The cat sat", "Once upon a time, there was", "def f(x): return x")
"""Of unequal length, so that a batch of them is padded."""


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
