"""The prompts that ship with the zoo, and the continuations its checkpoints are fitted to."""

from __future__ import annotations

import random
from typing import Final

TEXTS: Final = (
    "Hello",
    "2 + 2 =",
    "The cat sat",
    "Once upon a time",
    "def main():",
    "Paris is the capital of",
    "import torch",
    "To be, or not to be, tha",
)

PROMPTS: Final = tuple(tuple(text.encode()) for text in TEXTS)
"""`TEXTS` as token ids: unequal lengths, from 5 to 24."""

CONTINUATION_LENGTH: Final = 16
"""New tokens, per prompt, whose greedy choice is clear in every dtype."""

_ALPHABET: Final = b"abcdefghijklmnop"


def continuations(seed: int) -> tuple[tuple[int, ...], ...]:
    """A continuation of `CONTINUATION_LENGTH` token ids for each prompt, drawn from `seed`.

    Each is another order of the same sixteen letters: none repeats a token, and the token before never
    determines the next, so that a model has to read its context to give the right one.
    """
    source = random.Random(seed)  # noqa: S311 - no secret
    return tuple(tuple(source.sample(_ALPHABET, CONTINUATION_LENGTH)) for _ in PROMPTS)
