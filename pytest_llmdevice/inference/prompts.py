"""Holds the prompts of the suite, and loads the tokenizer that encodes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.model.own import member
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


def prompts_of(target: Any, loaded: Any, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """The prompts for `target`: what its `prompt_ids` makes of the texts, if it takes texts and has that, or `prompts`.

    Args:
        target: the code under test.
        loaded: what its `load` returned.
        prompts: the texts, encoded by the tokenizer alone.

    Raises:
        ConfigurationError: it gives something else than a list of ids for each text.
    """
    function = member(target, "prompt_ids")
    if function is None or getattr(target, "generate", None) is not None:
        return [list(prompt) for prompt in prompts]
    given = function(loaded, list(PROMPT_TEXTS))
    rows = [[int(token) for token in row] for row in given if len(row)]
    if len(rows) != len(PROMPT_TEXTS):
        raise ConfigurationError(
            f"the target's prompt_ids gave {len(rows)} lists of token ids for {len(PROMPT_TEXTS)} texts"
        )
    return rows


def encode(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Encode `PROMPT_TEXTS` as lists of token ids."""
    return [list(tokenizer(text)["input_ids"]) for text in PROMPT_TEXTS]
