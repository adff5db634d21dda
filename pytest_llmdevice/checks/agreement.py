"""Checks that a model's logits and generated tokens agree with the same model on the CPU in float32."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.declared_ends import declared_findings
from pytest_llmdevice.checks.differences import allowed_gap, overall_error, relative_errors
from pytest_llmdevice.checks.ended_rows import ended_findings
from pytest_llmdevice.checks.examination import NEW_TOKENS, Examination
from pytest_llmdevice.checks.generation import token_rows, until_end
from pytest_llmdevice.checks.least_length import least_length_findings
from pytest_llmdevice.checks.many_prompts import many_prompts_findings
from pytest_llmdevice.checks.module_outputs import module_findings
from pytest_llmdevice.checks.noise import Inspection
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.said_again import said_again_findings
from pytest_llmdevice.checks.steps import watch_generation
from pytest_llmdevice.checks.stops import ends_of
from pytest_llmdevice.checks.token_causes import TokenEvidence, cause_of_tokens, token_evidence
from pytest_llmdevice.checks.tolerance import generation_tolerance
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.generation import BATCH, MANY_PROMPTS, ROW_ORDER, SHIFTED, STOP
from pytest_llmdevice.diagnosis.hints.values import NONFINITE, NUMERIC
from pytest_llmdevice.errors import DoesNotApply, message_of
from pytest_llmdevice.inference.generation import end_tokens, inputs_for, pad_token
from pytest_llmdevice.inference.logits import continuation_logits, forward_logits
from pytest_llmdevice.oracle.reference import Reference
from pytest_llmdevice.zoo.fitted import why_unclear

if TYPE_CHECKING:
    import torch

    from pytest_llmdevice.diagnosis import Hint

Tokens = Sequence[Sequence[int]]

UNCLEAR: Final = "choices that are close to ties"
"""The evidence of a tiny checkpoint whose choices could not be made clear: why not."""

Watch = Callable[[Sequence[int], int], TokenEvidence | None]
"""Has the target generate some tokens for a prompt by itself, and says what was seen."""


def check_agreement(
    model: Any,
    expected: Reference,
    prompts: Tokens,
    generated: object,
    alone: object,
    tolerance: float,
    own_tolerance: float,
    watch: Watch | None = None,
    ends: Collection[int] | None = None,
) -> Result:
    """Compare logits and generated tokens with the reference, and a batch with its prompts alone.

    The logits of each prompt must equal the reference's up to an overall relative error of `tolerance`. At the first
    token of a sequence that differs from the reference's, the reference's logit of the chosen token must be within
    the gap that `tolerance` allows. Each sequence of the batch must equal the one for its prompt alone, with a gap
    that `own_tolerance` allows. Outputs that are no lists of token ids are left to the generation check.

    Args:
        model: the model under test.
        expected: the reference's logits and tokens.
        prompts: token ids of each prompt.
        generated: what the target generated for all prompts as one padded batch.
        alone: what it generated for each prompt alone.
        tolerance: the largest relative error to the reference.
        own_tolerance: the largest relative error of the model to itself.
        watch: looks for the cause of tokens that are wrong; without it, it is not looked for.
        ends: the tokens that end a row; by default the model's end tokens.
    """
    logits = [forward_logits(model, inputs_for(model, [prompt]))[0].float().cpu() for prompt in prompts]
    # A vocabulary that was enlarged for a padding token has more logits; only the original ones are compared.
    logits = [own[:, : wanted.shape[-1]] for own, wanted in zip(logits, expected.logits, strict=True)]
    shapes = [(tuple(own.shape), tuple(wanted.shape)) for own, wanted in zip(logits, expected.logits, strict=True)]
    if wrong := [Finding("logits", str(wanted), str(own)) for own, wanted in shapes if own != wanted]:
        return Result("agreement", tuple(wrong))
    error = overall_error(logits, expected.logits)
    findings = []
    # In this form a nan, which compares false with everything, is a finding.
    if not error <= tolerance:
        where, worst = _first_beyond(logits, expected.logits, tolerance)
        findings.append(
            Finding(
                f"logits, first at {where}",
                f"relative error at most {tolerance:g} over all positions",
                f"{error:.3g} (worst position {worst:.3g})",
                NUMERIC if all(bool(own.isfinite().all()) for own in logits) else NONFINITE,
                size=error,
            )
        )
    same = sum(
        int((own.argmax(-1) == wanted.argmax(-1)).sum()) for own, wanted in zip(logits, expected.logits, strict=True)
    )
    positions = sum(map(len, logits))
    stops = end_tokens(model) if ends is None else ends
    rows, singles = _rows(generated, logits, stops), _rows(alone, logits, stops)
    if rows:
        # Where forward passes are wrong already, tokens follow from that.
        seen = None if watch is None or findings else watch
        findings += _choices(expected, rows, tolerance, _Cause(model, prompts, seen))
    if rows and singles and not findings:
        findings += _batch_effects(model, prompts, rows, singles, own_tolerance)
    evidence: dict[str, int | float | str] = {
        "positions": positions,
        "relative error": f"{error:.3g}",
        "tolerance": f"{tolerance:g}",
        "same best token": f"{same} of {positions}",
        "generated tokens": sum(map(len, rows)),
        "generated one by one": sum(map(len, singles)),
    }
    return Result("agreement", tuple(findings), evidence)


def _rows(generated: object, logits: Sequence[torch.Tensor], ends: Collection[int]) -> list[list[int]]:
    """`generated` as lists of token ids, each up to its end token; empty for other outputs."""
    rows = [until_end(row, ends) for row in token_rows(generated) or []]
    known = all(0 <= token < logits[0].shape[-1] for row in rows for token in row)
    return rows if known and len(rows) == len(logits) else []


def _first_beyond(
    logits: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], tolerance: float
) -> tuple[str, float]:
    """The first position whose error exceeds `tolerance`, in words, and the largest error of a position."""
    errors = [relative_errors(own, wanted).tolist() for own, wanted in zip(logits, expected, strict=True)]
    worst = max(float("inf") if isnan(error) else error for row in errors for error in row)
    for number, row in enumerate(errors):
        for position, error in enumerate(row):
            if not error <= tolerance:
                return f"prompt {number}, position {position} of {len(row)}", worst
    return "no single position", worst


Why = Callable[[int, Sequence[int], int], "tuple[str, Hint | None]"]
"""(number of a prompt, row, step) -> what was handed to the model for it, in words, and the usual cause."""


class _Cause:
    """Why the tokens of a row are wrong from a step on; looked for at the first row only, the others have it too."""

    def __init__(self, model: Any, prompts: Tokens, watch: Watch | None) -> None:
        self._model, self._prompts, self._watch = model, prompts, watch
        self._known: tuple[str, Hint | None] | None = None

    def __call__(self, number: int, row: Sequence[int], step: int) -> tuple[str, Hint | None]:
        """What was handed to the model for the prompt, in words, and the usual cause."""
        if self._watch is None:
            return "", None
        if step and set(row[step:]) == {pad_token(self._model)}:
            return "; it ended here and was filled with padding", STOP
        if self._known is None:
            seen = self._watch(self._prompts[number], step + 1)
            self._known = ("", None) if seen is None else (f"; {seen.handed}", cause_of_tokens(seen))
        return self._known


def _choices(expected: Reference, generated: Sequence[Sequence[int]], tolerance: float, why: Why) -> list[Finding]:
    findings = []
    for number, (row, tokens, steps) in enumerate(zip(generated, expected.tokens, expected.steps, strict=True)):
        step = next((at for at, pair in enumerate(zip(row, tokens, strict=False)) if pair[0] != pair[1]), None)
        if step is None:
            continue
        if not 0 <= row[step] < steps.shape[-1]:
            # A token of an enlarged vocabulary, for which the reference has no logit.
            said, hint = why(number, row, step)
            where = f"prompt {number}, new token {step}"
            findings.append(Finding(where, f"token {tokens[step]}", f"token {row[step]}{said}", hint, "answer"))
            continue
        # After the first difference the two sequences have different prefixes and cannot be compared.
        logits = steps[step]
        order = logits.argsort(descending=True).tolist()
        gap = float(logits[tokens[step]] - logits[row[step]])
        allowed = allowed_gap(logits, tolerance)
        if not gap <= allowed:
            known = _misplaced(number, generated, expected)
            said, hint = ("", known[1]) if known else why(number, row, step)
            what = known[0] if known else f"number {order.index(row[step]) + 1} in its ranking"
            findings.append(
                Finding(
                    f"prompt {number}, new token {step}",
                    f"token {tokens[step]}, or one within {allowed:.3g} of its logit",
                    f"token {row[step]}, {gap:.3g} below it ({what}){said}",
                    hint,
                    "answer",
                    size=gap,
                )
            )
    return findings


def _misplaced(number: int, rows: Sequence[Sequence[int]], expected: Reference) -> tuple[str, Hint] | None:
    """What a row with the right tokens in the wrong place is, and the usual cause; None for other rows."""
    row = list(rows[number])
    tokens = [list(wanted)[: len(actual)] for actual, wanted in zip(rows, expected.tokens, strict=True)]
    for other, wanted in enumerate(tokens):
        if other != number and row == wanted:
            # Where each row is there once, they were put into another order; else one was lost for another.
            moved = sorted(map(list, rows)) == sorted(tokens)
            return f"all of the row is prompt {other}'s", ROW_ORDER if moved else MANY_PROMPTS
    # An error in cutting off the prompt affects all rows; a single row may look shifted by chance.
    pairs = [(list(actual), wanted) for actual, wanted in zip(rows, tokens, strict=True)]
    if all(len(actual) > 2 and actual[:-1] == wanted[1:] for actual, wanted in pairs):
        return "the row is right from its second token on, and begins with that", SHIFTED
    if all(len(actual) > 2 and actual[1:] == wanted[:-1] for actual, wanted in pairs):
        return f"the row is right, and {row[0]} is in front of it", SHIFTED
    return None


def _batch_effects(
    model: Any, prompts: Tokens, batch: Sequence[Sequence[int]], alone: Sequence[Sequence[int]], tolerance: float
) -> list[Finding]:
    """Find prompts whose continuation in the batch differs from that alone, although the logits differ clearly.

    Tokens need not have the largest logit, because generation may forbid or force tokens, in the batch and alone.
    """
    findings = []
    for number, (prompt, row, single) in enumerate(zip(prompts, batch, alone, strict=True)):
        step = next((at for at, pair in enumerate(zip(row, single, strict=False)) if pair[0] != pair[1]), None)
        if step is None:
            continue
        logits = continuation_logits(model, prompt, single[: step + 1])[step].float().cpu()
        gap = abs(float(logits[single[step]] - logits[row[step]]))
        allowed = allowed_gap(logits, tolerance)
        if not gap <= allowed:
            findings.append(
                Finding(
                    f"prompt {number} in a batch, new token {step}",
                    f"token {single[step]}, as by itself",
                    f"token {row[step]}, whose logit is {gap:.3g} away (noise explains {allowed:.3g})",
                    BATCH,
                    "answer",
                    size=gap,
                )
            )
    return findings


def _agreement(exam: Examination) -> Result:
    own = generation_tolerance(exam.cell)
    rows, alone = exam.generated.first, exam.generated.alone

    def watch(prompt: Sequence[int], new: int) -> TokenEvidence | None:
        return token_evidence(partial(watch_generation, exam.target, exam.model, prompt, new), exam.model, prompt, own)

    ends = ends_of(exam, NEW_TOKENS)
    result = check_agreement(
        exam.model, exam.reference, exam.prompts, rows, alone, exam.logits_tolerance, own, watch, ends
    )
    if (why := why_unclear(Path(exam.checkpoint))) is not None:
        # Whatever noise turns there is no finding; so less was checked than elsewhere.
        result = replace(result, evidence={**result.evidence, UNCLEAR: why})
    if result.findings or exam.generated.error is not None:
        # What is wrong with a few prompts is wrong with many.
        return result
    longest = max(exam.prompts, key=len)
    single = next(iter(token_rows(alone) or []), [])
    parts: Mapping[str, Callable[[], Inspection]] = {
        "many prompts": lambda: many_prompts_findings(exam.target, exam.model, exam.prompts, alone, own, ends),
        "rows that end": lambda: ended_findings(exam.target, exam.model, exam.prompts, rows, ends),
        "declared ends": lambda: declared_findings(exam.target, exam.model, exam.loaded_from, longest, NEW_TOKENS, own),
        "the same token": lambda: said_again_findings(exam.target, exam.model, longest, single, ends),
        "least length": lambda: least_length_findings(exam.target, exam.model, longest),
        "modules": lambda: module_findings(exam.model, exam.checkpoint, exam.cell, longest),
    }
    findings: Sequence[Finding] = ()
    evidence: dict[str, int | float | str] = {}
    for name, part in parts.items():
        try:
            findings, more = part()
        except DoesNotApply as error:
            findings, more = (), {name: f"not tried: {message_of(error)}"}
        evidence |= more
        if findings:
            break
    return replace(result, findings=tuple(findings), evidence={**result.evidence, **evidence})


AGREEMENT_CHECK: Final = Check(
    "agreement",
    _agreement,
    (
        "logits and tokens agree with the same model on the cpu in float32, within a tolerance by dtype "
        "and quantization; a padded batch gives the tokens of its prompts one by one, and so do many "
        "prompts, some alike, one ending early"
    ),
    "The model, or the target's generation, says something else than the checkpoint.",
    needs=("generation",),
    failure="numeric",
    origin=True,
    behaviour=True,
    after="generation",
)
