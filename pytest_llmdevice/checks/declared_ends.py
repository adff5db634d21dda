"""Checks that a target's `generate` ends rows at each of a model's end tokens, where they are several."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.noise import Inspection
from pytest_llmdevice.checks.stops import MOST, ended_at
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.generation import ENDS_MISSED
from pytest_llmdevice.errors import of_target
from pytest_llmdevice.inference.generation import end_tokens, token_settings
from pytest_llmdevice.loading.target import BuiltinTarget

if TYPE_CHECKING:
    from collections.abc import Iterable

UNHEEDED: Final = "end tokens that end no row"


def declared_findings(
    target: Any, model: Any, checkpoint: str, prompt: Sequence[int], wanted: int, tolerance: float
) -> Inspection:
    """Have the model say each of its end tokens, and check that rows end at all of them if they do at one.

    Only where there are several: a list, or another one in the configuration or the tokenizer than in the generation
    configuration, which is the one that counts. A target that ends rows nowhere does so on purpose, or cannot be made
    to say any: the built-in generation forbids them.

    Args:
        target: the code under test.
        model: the model that it loaded.
        checkpoint: the local folder that it was loaded from.
        prompt: token ids.
        wanted: how many new tokens to ask for.
        tolerance: the largest relative error of the model to itself.
    """
    ends = sorted(end_tokens(model))[:MOST]
    others = [token for token in _elsewhere(model, checkpoint) if token not in ends]
    if (len(ends) < 2 and not (ends and others)) or getattr(type(target), "generate", None) is BuiltinTarget.generate:
        return [], {}
    heeded: dict[int, bool | None] = {}
    for end in (*ends, *others):
        if end in others and (True in heeded.values() or False not in heeded.values()):
            # These only tell that the target ends rows at all.
            break
        try:
            heeded[end] = ended_at(target, model, prompt, end, wanted, tolerance)
        except of_target():
            # The checks of the generation say so.
            return [], {}
    missed = [end for end in ends if heeded.get(end) is False]
    known = [end for end, found in heeded.items() if found]
    if missed and known:
        where = f"end token {missed[0]}"
        expected = f"a row ends there: the model's end tokens are {ends}"
        return [Finding(where, expected, f"it goes on, and ends at {known[0]}", ENDS_MISSED, "answer")], {}
    return [], {"end tokens": len(known)} if known else {UNHEEDED: len(missed)}


def _elsewhere(model: Any, checkpoint: str) -> list[int]:
    """The end tokens of the configuration and of the tokenizer, which may be others than those that count."""
    found: list[int] = []
    for source in token_settings(model):
        found += _ids(getattr(source, "eos_token_id", None))
    with suppress(Exception):
        # Of a checkpoint without a tokenizer nothing is said.
        from pytest_llmdevice.inference.prompts import load_tokenizer

        found += _ids(load_tokenizer(checkpoint).eos_token_id)
    return list(dict.fromkeys(found))


def _ids(value: object) -> Iterable[int]:
    values = value if isinstance(value, (list, tuple)) else (value,)
    return [each for each in values if isinstance(each, int)]
