"""Checks that a target's `generate` takes what the model says, also where it says the same token again and again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.generation import token_rows
from pytest_llmdevice.checks.stops import saying
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.generation import SETTINGS
from pytest_llmdevice.errors import target_forgiven
from pytest_llmdevice.inference.generation import generate, generate_with, pad_token

if TYPE_CHECKING:
    from pytest_llmdevice.checks.noise import Inspection

NEW: Final = 7
"""New tokens: one more than the longest run of tokens that settings in use forbid to come twice."""

SAID_AGAIN: Final = "the same token each time"


def said_again_findings(
    target: Any, model: Any, prompt: Sequence[int], row: Sequence[int], ends: Collection[int]
) -> Inspection:
    """Have the model say one token at every step, by a little, and check that it is taken every time.

    A penalty for what was said before, or a run of tokens that must not come twice, which the checkpoint's generation
    configuration does not ask for, takes another one. Prompts alone need not show it: their answers may have no token
    twice. A target whose passes are not those of the model's `forward`, or a checkpoint with such settings of its own,
    is not checked, and the evidence says so.

    Args:
        target: the code under test.
        model: the model that it loaded.
        prompt: token ids.
        row: what the target generated for a prompt: the token is taken from it.
        ends: the tokens that end a row.
    """
    token = next((each for each in row if each not in ends and each != pad_token(model)), None)
    if token is None:
        return [], {}
    wanted = [token] * NEW
    tokens: list[list[int]] | None = None
    with saying(model, token) as made, target_forgiven():
        tokens = token_rows(generate_with(target, model, [list(prompt)], NEW))
    if not tokens or len(tokens) != 1 or made.passes < NEW:
        return [], {SAID_AGAIN: "not tried: the model could not be made to say it"}
    if tokens[0] == wanted:
        return [], {SAID_AGAIN: NEW}
    plain: list[list[int]] = []
    with saying(model, token), target_forgiven():
        plain = generate(model, [list(prompt)], NEW)
    if plain != [wanted]:
        return [], {SAID_AGAIN: "not tried: the checkpoint's own settings forbid it"}
    step = next((at for at, each in enumerate(tokens[0]) if each != token), len(tokens[0]))
    where = f"a prompt of {len(prompt)} tokens, new token {step}"
    expected = f"token {token}, which has the largest logit at every step here"
    said = f"token {tokens[0][step]}" if step < len(tokens[0]) else f"the end, after {step} of {NEW}"
    return [Finding(where, expected, f"{said}; in all {tokens[0]}", SETTINGS, "answer")], {SAID_AGAIN: step}
