"""Checks that a target's `generate` forbids the end of a row either throughout or nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.generation import token_rows
from pytest_llmdevice.checks.stops import saying
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.generation import SETTINGS
from pytest_llmdevice.errors import target_forgiven
from pytest_llmdevice.inference.generation import end_tokens, generate_with, token_settings
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.model.lengths import position_limit

if TYPE_CHECKING:
    from pytest_llmdevice.checks.noise import Inspection

FEW: Final = 8
"""New tokens that are asked for at first: a target that ends rows at all mostly does so within these."""

MANY: Final = 130
"""New tokens that are asked for where no row ends among a few: more than the least lengths that libraries have had by
default (50, 56, 100 and 128)."""

ALLOWED: Final = 1
"""New tokens in front of an end that a target may insist on: no empty answers."""

LEAST: Final = "new tokens up to an end"


def least_length_findings(target: Any, model: Any, prompt: Sequence[int]) -> Inspection:
    """Have the model say an end token at every step, by a little, and check where the row ends.

    It ends at once, or it never does: a target that is asked for a number of tokens may forbid ends on purpose, but
    then for all of them. One that ends in between has a least length, which nobody asked for where the checkpoint does
    not. The built-in generation forbids ends, and is not checked.

    Args:
        target: the code under test.
        model: the model that it loaded.
        prompt: token ids.
    """
    ends = sorted(end_tokens(model))
    if not ends or getattr(type(target), "generate", None) is BuiltinTarget.generate:
        return [], {}
    many = max(FEW, min(MANY, position_limit(model) - len(prompt)))
    for wanted in (FEW, many):
        row: list[int] | None = None
        with saying(model, ends[0]) as made, target_forgiven():
            row = next(iter(token_rows(generate_with(target, model, [list(prompt)], wanted)) or []), None)
        if not row or not made.passes:
            return [], {LEAST: "not tried: the model could not be made to say one"}
        if ends[0] in row:
            return _least(model, prompt, row, ends[0], wanted)
    return [], {LEAST: f"none in {many}"}


def _least(model: Any, prompt: Sequence[int], row: Sequence[int], end: int, wanted: int) -> Inspection:
    """What is wrong with `row`, which has `end` in it, where `wanted` new tokens were asked for."""
    before = row.index(end)
    # A last token may be forced.
    if before <= max(ALLOWED, _declared(model, len(prompt))) or before == wanted - 1:
        return [], {LEAST: before + 1}
    where = f"end token {end}, which has the largest logit at every step here"
    expected = "a row that ends there at once, or nowhere: the checkpoint asks for no least length"
    actual = f"the row has it behind {before} other tokens, of {wanted} that were asked for"
    return [Finding(where, expected, actual, SETTINGS, "answer")], {LEAST: before + 1}


def _declared(model: Any, width: int) -> int:
    """The least number of new tokens that the checkpoint asks for behind a prompt of `width` tokens."""
    found = [0]
    for source in token_settings(model):
        new, whole = (getattr(source, name, None) for name in ("min_new_tokens", "min_length"))
        found += [new] if isinstance(new, int) else []
        # Of an encoder-decoder it counts the start token, and no prompt.
        found += [max(whole - width, whole - 1 if _decodes_apart(source) else 0)] if isinstance(whole, int) else []
    return max(found)


def _decodes_apart(source: Any) -> bool:
    return bool(getattr(source, "is_encoder_decoder", False)) or isinstance(
        getattr(source, "decoder_start_token_id", None), int
    )
