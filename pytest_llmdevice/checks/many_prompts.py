"""Checks a target's `generate` with many prompts, and with equal prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.differences import is_choice
from pytest_llmdevice.checks.generation import token_rows, until_end
from pytest_llmdevice.checks.noise import Inspection
from pytest_llmdevice.checks.steps import watch_generation
from pytest_llmdevice.checks.token_causes import cause_of_tokens, token_evidence
from pytest_llmdevice.diagnosis import Finding, finding_from_exception
from pytest_llmdevice.diagnosis.hints.generation import (
    BATCH,
    MANY_PROMPTS,
    PROMPT_IN_FRONT,
    ROW_ORDER,
    TOO_MANY,
)
from pytest_llmdevice.errors import of_target
from pytest_llmdevice.inference.generation import end_tokens, generate_with
from pytest_llmdevice.inference.logits import continuation_logits
from pytest_llmdevice.model.settings import vocabulary_size
from pytest_llmdevice.model.wrappers import configuration_of

if TYPE_CHECKING:
    from pytest_llmdevice.diagnosis import Hint

Tokens = Sequence[Sequence[int]]
Rows = list[list[int]]

ORDER: Final = (2, 0, 1, 3, 0, 4, 2, 2, 1, 3, 0)
"""The numbers of the prompts in the large batch. Its size is not divisible by usual batch sizes, and all prompts but
one occur more than once."""

NEW: Final = 3
"""New tokens for each prompt, a number that differs from those of the other generations."""


def many_prompts_findings(
    target: Any, model: Any, prompts: Tokens, alone: object, tolerance: float, stops: Collection[int] | None = None
) -> Inspection:
    """Generate for many prompts at once, some equal, some of equal length, and check that each gets its continuation.

    Every token must have the largest of the model's own logits, or nearly so, up to a relative error of `tolerance`.
    If the target does not choose greedily for single prompts either (it forbids or forces tokens), only the number of
    rows is checked.

    Args:
        target: the code under test.
        model: the model that it loaded.
        prompts: token ids of each prompt; with less than three prompts nothing is checked.
        alone: what the target generated for each prompt alone.
        tolerance: see `tolerance.generation_tolerance`.
        stops: the tokens that end a row; by default the model's end tokens.
    """
    singles = token_rows(alone) if alone is not None else None
    if len(prompts) < 3 or singles is None or len(singles) != len(prompts):
        return [], {}
    given = many_prompts(prompts)
    try:
        output = generate_with(target, model, given, NEW)
    except of_target() as error:
        return [finding_from_exception(error, model, doing=f"generation for {len(given)} prompts")], {}
    rows = token_rows(output)
    if rows is None or len(rows) != len(given):
        actual = "something else" if rows is None else f"{len(rows)} of them"
        wanted = f"{len(given)} lists of new token ids"
        hint = None if rows is None else MANY_PROMPTS
        return [Finding(f"{len(given)} prompts at once", wanted, actual, hint, "answer")], {}
    short = next((at for at, row in enumerate(rows) if len(row) > NEW or not row), None)
    if short is not None:
        where = f"prompt {short} of {len(given)} at once"
        hint = _length_cause(given[short], rows[short])
        return [Finding(where, f"{NEW} new tokens", f"{len(rows[short])} tokens: {rows[short]}", hint, "answer")], {}
    evidence: dict[str, int | float | str] = {"prompts at once": len(given)}
    ends = end_tokens(model) if stops is None else stops
    singles, rows = ([until_end(row, ends) for row in output_rows] for output_rows in (singles, rows))
    greedy = all(_best(model, prompt, row, tolerance) is None for prompt, row in zip(prompts, singles, strict=True))
    own = {(tuple(prompt), tuple(row[:NEW])) for prompt, row in zip(prompts, singles, strict=True)}
    findings = list(_not_their_own(target, model, given, rows, tolerance, own, ends)) if greedy else []
    return findings[:1], evidence


def _length_cause(prompt: Sequence[int], row: Sequence[int]) -> Hint:
    """The usual cause of a row without tokens, or with more than were asked for."""
    if not row:
        return MANY_PROMPTS
    size = len(prompt)
    within = any(list(row[at : at + size]) == list(prompt) for at in range(len(row) - size + 1)) if size else False
    return PROMPT_IN_FRONT if within else TOO_MANY


def many_prompts(prompts: Tokens) -> list[list[int]]:
    """The prompts of the large batch, in `ORDER`: the first three of `prompts`, and two of them reversed."""
    distinct = [*prompts[:3], *(list(reversed(prompt)) for prompt in prompts[:2])]
    return [list(distinct[number]) for number in ORDER]


_Pair = tuple[tuple[int, ...], tuple[int, ...]]


def _not_their_own(
    target: Any,
    model: Any,
    prompts: Tokens,
    rows: Rows,
    tolerance: float,
    own: Collection[_Pair],
    ends: Collection[int],
) -> Iterator[Finding]:
    """Find rows that do not continue their prompt; the pairs (prompt, row) in `own` are known to be right."""
    known: dict[_Pair, tuple[int, str] | None] = dict.fromkeys(own)
    for number, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        key = (tuple(prompt), tuple(row))
        if key not in known:
            known[key] = _best(model, prompt, row, tolerance)
        wrong = known[key]
        if wrong is None:
            continue
        step, what = wrong
        other = _whose(model, prompts, number, row, tolerance)
        wanted = f"the model's own choice at each step (step {step} is not)"
        where = f"prompt {number} of {len(prompts)} at once"
        if other is not None:
            moved = _reordered(model, prompts, rows, tolerance)
            of_other = f"{row}: the tokens of prompt {other}"
            yield Finding(where, wanted, of_other, ROW_ORDER if moved else MANY_PROMPTS, "answer")
        elif _alone(target, model, prompt, ends) == row:
            seen = token_evidence(partial(watch_generation, target, model, prompt, NEW), model, prompt, tolerance)
            said, hint = ("", None) if seen is None else (f"; {seen.handed}", cause_of_tokens(seen))
            alone = f"a prompt of {len(prompt)} tokens by itself"
            # What was right when it was watched has another cause.
            yield Finding(alone, wanted, f"{row}: {what}{said}", None if hint is BATCH else hint, "answer")
        else:
            hint = _among_many(target, model, prompts, number, tolerance, ends)
            yield Finding(where, wanted, f"{row}: {what}", hint, "answer")


def _reordered(model: Any, prompts: Tokens, rows: Rows, tolerance: float) -> bool:
    """Whether each prompt has as many rows as it has to, wherever they stand: none was lost for another one's."""
    distinct = dict.fromkeys(tuple(prompt) for prompt in prompts)
    left = Counter(tuple(prompt) for prompt in prompts)
    for row, count in Counter(tuple(row) for row in rows).items():
        owner = next((prompt for prompt in distinct if _best(model, prompt, row, tolerance) is None), None)
        if owner is None:
            return False
        left[owner] -= count
    return not any(left.values())


def _among_many(
    target: Any, model: Any, prompts: Tokens, number: int, tolerance: float, ends: Collection[int]
) -> Hint | None:
    """The usual cause of a row that is wrong among many, by whether it is right in a batch of two with padding."""
    prompt = prompts[number]
    other = next((list(each) for each in prompts if len(each) > len(prompt)), None)
    other = other or next((list(each) for each in prompts if len(each) != len(prompt)), None)
    alone = _alone(target, model, prompt, ends)
    if other is None or alone is None or _best(model, prompt, alone, tolerance) is not None:
        return None
    rows = token_rows(generate_with(target, model, [list(prompt), other], NEW))
    if not rows or len(rows) != 2:  # as many as were asked for
        return None
    pair = until_end(rows[0], ends)
    return MANY_PROMPTS if _best(model, prompt, pair, tolerance) is None else BATCH


def _alone(target: Any, model: Any, prompt: Sequence[int], ends: Collection[int]) -> list[int] | None:
    """What the target generates for `prompt` alone, up to an end token."""
    rows = token_rows(generate_with(target, model, [list(prompt)], NEW))
    return until_end(rows[0], ends) if rows and len(rows) == 1 else None


def _whose(model: Any, prompts: Tokens, number: int, row: list[int], tolerance: float) -> int | None:
    """The number of another prompt that `row` continues, or None."""
    distinct = {tuple(prompt): at for at, prompt in reversed(list(enumerate(prompts)))}
    for prompt, at in distinct.items():
        if list(prompt) != list(prompts[number]) and _best(model, prompt, row, tolerance) is None:
            return at
    return None


def _best(model: Any, prompt: Sequence[int], row: Sequence[int], tolerance: float) -> tuple[int, str] | None:
    """The first step of `row` whose token is not the model's choice, and how far it is from it; None if all are."""
    size = vocabulary_size(configuration_of(model))
    outside = next((at for at, token in enumerate(row) if token < 0 or (size is not None and token >= size)), None)
    if outside is not None:
        return outside, f"token {row[outside]} is none of {size}"
    logits = continuation_logits(model, prompt, row).float().cpu()
    for step, (token, choices) in enumerate(zip(row, logits, strict=True)):
        if not 0 <= token < len(choices):
            return step, f"token {token} is none of {len(choices)}"
        if not is_choice(choices, token, tolerance):
            gap = float(choices.max() - choices[token])
            return step, f"token {token} is {gap:.3g} below token {int(choices.argmax())}"
    return None
