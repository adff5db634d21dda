"""Checks that a target's `generate` returns as many new token ids as requested, and the same ones each time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.examination import NEW_TOKENS, Examination
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.diagnosis import Finding, finding_from_exception
from pytest_llmdevice.diagnosis.failure import excerpt
from pytest_llmdevice.diagnosis.hints import generation
from pytest_llmdevice.inference.generation import end_tokens, is_encoder_decoder
from pytest_llmdevice.inference.generation_run import GenerationRun
from pytest_llmdevice.model.settings import vocabulary_size
from pytest_llmdevice.model.wrappers import configuration_of

if TYPE_CHECKING:
    from pytest_llmdevice.diagnosis import Hint

Tokens = Sequence[Sequence[int]]

CONTRACT: Final = (
    "generate(model, prompts, max_new_tokens) returns, for each prompt and in their order, the ids of the new tokens: "
    "no text, no prompt, no padding in front; fewer than max_new_tokens only where an end token came before"
)


def check_generation(
    generated: GenerationRun, prompts: Tokens, max_new_tokens: int, model: Any, ends: Collection[int] | None = None
) -> Result:
    """Two greedy generations of one batch: as many new tokens as asked, real token ids, the same twice.

    For one prompt by itself, too, there is a list in a list. Fewer tokens are right only where an end token is among
    them, and nothing but padding behind it.

    Args:
        generated: what the target's `generate` returned, or raised.
        prompts: lists of token ids.
        max_new_tokens: how many were asked for.
        model: the model.
        ends: the tokens that end a row; by default the model's end tokens.
    """
    if generated.error is not None:
        findings = [*_strangers(generated, model), finding_from_exception(generated.error, model, doing="generation")]
        return Result("generation", tuple(findings), details=excerpt(generated.error))
    first, second = generated.first, generated.second
    findings = [*_malformed(first, prompts), *_malformed(second, prompts)]
    findings += [] if findings else _malformed_alone(generated.alone)
    if findings:
        return Result("generation", tuple(dict.fromkeys(findings)), details=CONTRACT)
    first_rows, second_rows = token_rows(first) or [], token_rows(second) or []
    stops = end_tokens(model) if ends is None else ends
    vocabulary = vocabulary_size(configuration_of(model))
    for number, (row, again) in enumerate(zip(first_rows, second_rows, strict=True)):
        where = f"prompt {number}"
        findings += _length(where, row, list(prompts[number]), max_new_tokens, model, stops)
        outside = [
            token for token in until_end(row, stops) if token < 0 or (vocabulary is not None and token >= vocabulary)
        ]
        if outside:
            findings.append(Finding(where, f"token ids below {vocabulary}", str(outside)))
        if row != again:
            findings.append(Finding(where, f"the same tokens twice: {row}", str(again), _why_not_repeated(generated)))
    evidence = {"prompts": len(first_rows), "tokens": sum(map(len, first_rows))}
    return Result("generation", tuple(findings), evidence, CONTRACT if findings else "")


def _why_not_repeated(generated: GenerationRun) -> Hint:
    """The usual cause of other tokens the second time, by random numbers that were drawn and what was handed over."""
    if generated.drawn:
        return generation.RANDOM
    start = generated.second_starts
    calls = [] if start is None else generated.trace.calls[start:]
    first = next((call for call in calls if call.past is not None), None)
    return generation.KEPT if first is not None and first.past else generation.UNREPEATED


def _length(
    where: str, row: list[int], prompt: list[int], wanted: int, model: Any, ends: Collection[int]
) -> list[Finding]:
    if len(row) == wanted or (len(row) < wanted and _ended(row, ends)):
        return []
    if prompt and len(row) >= len(prompt):
        # Padding may stand in front of the prompt.
        starts = [at for at in range(len(row) - len(prompt) + 1) if row[at : at + len(prompt)] == prompt]
        if starts and len(set(row[: starts[0]])) <= 1:
            actual = f"{len(row)} tokens, the first {starts[0] + len(prompt)} of them the prompt"
            return [Finding(where, f"{wanted} new tokens", actual, generation.PROMPT_IN_FRONT)]
    if is_encoder_decoder(model) and len(row) == wanted + 1:
        actual = f"{len(row)} tokens, the first of them the decoder's start token: {row}"
        return [Finding(where, f"{wanted} new tokens", actual, generation.PROMPT_IN_FRONT)]
    hint = None
    if (extra := len(row) - wanted) > 0:
        # A part of the prompt is in front where rows are cut at another row's length.
        hint = generation.PROMPT_IN_FRONT if row[:extra] == prompt[-extra:] else generation.TOO_MANY
    return [Finding(where, f"{wanted} new tokens (or an end token)", f"{len(row)} tokens: {row}", hint)]


def _ended(row: list[int], ends: Collection[int]) -> bool:
    """Whether there is an end token in `row`, and nothing behind it but end tokens and one that fills it up."""
    at = next((at for at, token in enumerate(row) if token in ends), None)
    return at is not None and len({token for token in row[at:] if token not in ends}) <= 1


def _strangers(generated: GenerationRun, model: Any) -> list[Finding]:
    """The first module that got a tensor of another device than its own, and did not come to an end."""
    from pytest_llmdevice.model.device_map import execution_device, with_index

    modules = dict(model.named_modules()) if hasattr(model, "named_modules") else {}
    for name, passage in reversed(generated.trace.modules.items()):
        module = modules.get(name)
        # A hook of accelerate's brings what it is given; a module of several parts has no device of its own.
        if passage.finished or module is None or hasattr(module, "_hf_hook") or any(True for _ in module.children()):
            continue
        if next(module.parameters(), None) is None:
            continue
        home = with_index(execution_device(module))
        for path, tensor in passage.inputs.items():
            if tensor.shape and with_index(tensor.device) != home:
                return [Finding(f"{name}, {path}", f"device {home}", f"device {with_index(tensor.device)}")]
    return []


def _malformed(output: object, prompts: Tokens) -> list[Finding]:
    contract = f"{len(prompts)} lists of new token ids, one for each prompt"
    where = "what generate returned"
    rows = token_rows(output)
    if rows is None:
        return [Finding(where, contract, _described(output), kind="form")]
    if len(rows) != len(prompts):
        return [Finding(where, contract, f"{len(rows)} of them", kind="form")]
    return []


def _malformed_alone(alone: Sequence[object] | None) -> list[Finding]:
    """The first prompt by itself for which no list of ids came inside a list."""
    for number, row in enumerate(alone or ()):
        if token_rows([row]) is None:
            where = f"what generate returned for prompt {number} by itself"
            actual = "nothing" if row is None else f"a list that begins with {_described(row)}"
            return [Finding(where, "1 list of new token ids, in a list", actual, kind="form")]
    return []


def _described(output: Any) -> str:
    if output is None:
        return "None: is a return missing?"
    shown = f"{type(output).__name__}: {str(output)[:60]!r}"
    texts = [output] if isinstance(output, str) else output if isinstance(output, (list, tuple)) else []
    if texts and all(isinstance(text, str) for text in texts):
        return f"text, {shown}"
    if hasattr(output, "sequences") or (isinstance(output, dict) and "sequences" in output):
        return f"{type(output).__name__}: the ids are in its sequences"
    return shown


def token_rows(output: Any) -> list[list[int]] | None:
    """`output` as lists of token ids, None when it is something else. Tensors count: the ids are what matters."""
    try:
        rows = [row.tolist() if hasattr(row, "tolist") else list(row) for row in output]
        if any(isinstance(token, (str, bytes)) or token != int(token) for row in rows for token in row):
            return None
    except (TypeError, ValueError, OverflowError):
        return None
    return [[int(token) for token in row] for row in rows]


def until_end(row: Sequence[int], ends: Collection[int]) -> list[int]:
    """`row` up to its first end token: what stands behind it is filling, whatever it is."""
    stop = next((at for at, token in enumerate(row) if token in ends), len(row))
    return list(row[: stop + 1])


def _generation(exam: Examination) -> Result:
    from pytest_llmdevice.checks.stops import ends_of

    result = check_generation(exam.generated, exam.prompts, NEW_TOKENS, exam.model)
    if result.findings and exam.generated.error is None:
        # A row that is short may have ended where the target ends rows.
        ends = ends_of(exam, NEW_TOKENS)
        return check_generation(exam.generated, exam.prompts, NEW_TOKENS, exam.model, ends)
    return result


GENERATION_CHECK: Final = Check(
    "generation",
    _generation,
    (
        "greedy generation gives as many tokens as were asked for, twice the same, and a list in a list "
        "for one prompt too"
    ),
    ("The target's generation raises, or gives too few tokens, others the second time, or another form."),
    needs=("generation",),
    failure="numeric",
    origin=True,
    behaviour=True,
    after="inputs",
)
