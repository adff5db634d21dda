"""Finds the tokens at which a target ends a row on its own account: those of a chat's turn, a list of stop words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.differences import is_choice
from pytest_llmdevice.checks.generation import token_rows
from pytest_llmdevice.checks.tolerance import generation_tolerance
from pytest_llmdevice.errors import of_target
from pytest_llmdevice.inference.generation import end_tokens, generate_with
from pytest_llmdevice.inference.logits import continuation_logits
from pytest_llmdevice.model.wrappers import core

if TYPE_CHECKING:
    from pytest_llmdevice.checks.examination import Examination

Tokens = Sequence[Sequence[int]]


def ends_of(exam: Examination, wanted: int) -> frozenset[int]:
    """The tokens that end a row of the target's generation: the model's end tokens, and the target's own.

    Args:
        exam: the examination.
        wanted: how many new tokens the target was asked for.
    """
    if exam.ends is None:
        known = frozenset(end_tokens(exam.model))
        rows = token_rows(exam.generated.first) if exam.generated.error is None else None
        own: frozenset[int] = frozenset()
        if rows and len(rows) == len(exam.prompts):
            try:
                own = own_stops(exam.target, exam.model, exam.prompts, rows, wanted, generation_tolerance(exam.cell))
            except of_target():
                # The checks that ask run the same, and say so.
                own = frozenset()
        exam.ends = known | own
    return exam.ends


def own_stops(target: Any, model: Any, prompts: Tokens, rows: Tokens, wanted: int, tolerance: float) -> frozenset[int]:
    """The tokens at which `target` ends rows, and which are none of the model's end tokens.

    A row that is too short, or that is filled with what the model would not choose, may have ended at its last token
    before that, or be wrong. It has ended at a token if the target, given the row up to there, says that token and
    nothing else, goes on as usual when it is given that token too, goes on behind it in no other row, and ends rows at
    the model's end tokens as well.

    Args:
        target: the code under test.
        model: the model that it loaded.
        prompts: token ids of each prompt.
        rows: what the target generated for each.
        wanted: how many new tokens it was asked for.
        tolerance: the largest relative error of the model to itself.

    Raises:
        Exception: what the target or the model raises.
    """
    known = end_tokens(model)
    found: set[int] = set()
    for prompt, row in zip(prompts, rows, strict=True):
        if known & set(row):
            continue
        for at in _candidates(model, prompt, row, wanted, tolerance):
            token = row[at]
            if token in found:
                break
            if any(_goes_on(other, token) for other in rows):
                continue
            if _ends(target, model, prompt, row, at, wanted, tolerance):
                found.add(token)
                break
    if found and not all(heeds(target, model, prompts[0], end, wanted, tolerance) for end in sorted(known)[:MOST]):
        # Not besides the model's end tokens but instead of them: those of another model.
        return frozenset()
    return frozenset(found)


MOST: Final = 4
"""How many of the model's end tokens are tried."""

_CALLS: Final = 6
"""How many forward passes it may take until one gives a new token that is not the last one."""


MARGIN: Final = 1 / 64
"""How far above the others a token is that the model is made to say each time, as a share of the largest logit: above
what a 16-bit number resolves, and below what any penalty in use takes away."""


def heeds(target: Any, model: Any, prompt: Sequence[int], end: int, wanted: int, tolerance: float) -> bool:
    """Whether `target` ends a row at `end`, which the model is made to say; true if it cannot be made to.

    Args:
        target: the code under test.
        model: the model that it loaded.
        prompt: token ids.
        end: a token.
        wanted: how many new tokens to ask for.
        tolerance: the largest relative error of the model to itself.
    """
    return ended_at(target, model, prompt, end, wanted, tolerance) is not False


def ended_at(target: Any, model: Any, prompt: Sequence[int], end: int, wanted: int, tolerance: float) -> bool | None:
    """The same; None if the model cannot be made to say the token, as where the target forbids it."""
    for number in range(1, _CALLS + 1):
        with saying(model, end, number):
            row = _one(target, model, prompt, wanted)
        if row and row[-1] == end and len(row) < wanted:
            return True
        if end not in row[:-1]:
            continue
        at = row.index(end)
        behind = row[at + 1 :]
        return len(set(behind)) <= 1 and _right(model, [*prompt, *row[: at + 1]], behind, tolerance) < len(behind)
    return None


@dataclass(slots=True)
class Said:
    """How many forward passes there were in which the model was made to say a token, or could have been."""

    passes: int = 0


@contextmanager
def saying(model: Any, token: int, number: int | None = None) -> Iterator[Said]:
    """Have the model choose `token` in its forward pass of that number, or in each by a little where there is none."""
    made = Said()

    def choose(_: Any, __: Any, output: Any) -> None:
        logits = getattr(output, "logits", None)
        if logits is None:
            return
        made.passes += 1
        if number is not None and made.passes != number:
            return
        with suppress(RuntimeError):
            most = logits.detach().amax(dim=-1)
            logits[..., token] = most + (1 if number is not None else most.abs().clamp(min=1) * MARGIN)

    handle = core(model).register_forward_hook(choose)
    try:
        yield made
    finally:
        handle.remove()


def _candidates(model: Any, prompt: Sequence[int], row: Sequence[int], wanted: int, tolerance: float) -> Iterator[int]:
    """The places in `row` at which it may have ended, all that is before them being what the model chooses."""
    if not row or len(row) > wanted:
        return
    right = _right(model, prompt, row, tolerance)
    if right == len(row):
        if len(row) < wanted:
            yield len(row) - 1
        return
    # What is behind the end is one token, repeated; it may be the one that ends the row.
    if right and len(set(row[right:])) == 1:
        yield right - 1


def _right(model: Any, prompt: Sequence[int], row: Sequence[int], tolerance: float) -> int:
    """How many tokens of `row` are the model's own choices, or nearly so."""
    logits = continuation_logits(model, prompt, [max(token, 0) for token in row]).float().cpu()
    for step, (token, choices) in enumerate(zip(row, logits, strict=True)):
        if not is_choice(choices, token, tolerance):
            return step
    return len(row)


def _goes_on(row: Sequence[int], token: int) -> bool:
    """Whether more than one token follows `token` in `row`, repeated or not."""
    return token in row and len(set(row[row.index(token) + 1 :])) > 1


def _ends(
    target: Any, model: Any, prompt: Sequence[int], row: Sequence[int], at: int, wanted: int, tolerance: float
) -> bool:
    again = _one(target, model, [*prompt, *row[:at]], wanted)
    if not again or again[0] != row[at] or len(set(again[1:])) > 1:
        return False
    beyond = [*prompt, *row[: at + 1]]
    behind = _one(target, model, beyond, wanted)
    # One right token could be all that the target ever generates.
    return len(behind) > 1 and _right(model, beyond, behind, tolerance) > 1


def _one(target: Any, model: Any, prompt: Sequence[int], wanted: int) -> list[int]:
    rows = token_rows(generate_with(target, model, [list(prompt)], wanted))
    return rows[0] if rows and len(rows) == 1 else []
