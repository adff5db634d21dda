"""Holds the prompts of the suite, and loads the tokenizer that encodes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.zoo import prompts as zoo_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPT_TEXTS: Final = tuple(text for text in zoo_prompts.TEXTS if len(text) in {5, 16, 24})
"""Prompts that the zoo's checkpoints continue with clear choices. Their lengths differ, so that a batch is padded, and
the longest exceeds the zoo's sliding windows."""


def load_tokenizer(checkpoint: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer in the folder `checkpoint`, with padding on the left, without network access."""
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        str(checkpoint), local_files_only=True, padding_side="left", trust_remote_code=False
    )
    return tokenizer


def encode(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Encode `PROMPT_TEXTS` as lists of token ids."""
    return [list(tokenizer(text)["input_ids"]) for text in PROMPT_TEXTS]
