"""Holds the prompts of the zoo, and draws the continuations that its checkpoints are trained on."""

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
"""The number of new tokens, per prompt, whose greedy choice is clear in every dtype."""

_ALPHABET: Final = b"abcdefghijklmnop"


def continuations(seed: int) -> tuple[tuple[int, ...], ...]:
    """Draw a continuation of `CONTINUATION_LENGTH` token ids for each prompt, from `seed`.

    Each is a permutation of the same sixteen letters: no token repeats, and a token does not determine the next one,
    so that a model needs its context to predict it.
    """
    source = random.Random(seed)  # noqa: S311 - no secret
    return tuple(tuple(source.sample(_ALPHABET, CONTINUATION_LENGTH)) for _ in PROMPTS)
