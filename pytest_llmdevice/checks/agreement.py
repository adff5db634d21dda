"""The check that a cell says what the same model says on the cpu in float32."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from math import isnan
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.examination import Check, Examination
from pytest_llmdevice.checks.generation import end_tokens, token_rows, until_end
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.tolerance import generation_tolerance
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.generation import CHOICE, ROW_ORDER, SHIFTED
from pytest_llmdevice.diagnosis.hints.values import NUMERIC
from pytest_llmdevice.inference.generation import inputs_for
from pytest_llmdevice.inference.logits import continuation_logits, forward_logits
from pytest_llmdevice.oracle.reference import Reference

if TYPE_CHECKING:
    import torch

    from pytest_llmdevice.diagnosis import Hint

Tokens = Sequence[Sequence[int]]


def relative_errors(logits: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """||logits - expected|| / ||expected - its mean|| over the vocabulary, of shape (positions,)."""
    errors: torch.Tensor = (logits - expected).norm(dim=-1) / _spread(expected)
    return errors


def overall_error(logits: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """The relative error of all positions together; see `tolerance.tolerance`. nan where a logit is nan.

    Where the expected logits say nothing (none, or all equal), any deviation is an infinite error.
    """
    pairs = list(zip(logits, expected, strict=True))
    deviation = sum(float((one - other).norm() ** 2) for one, other in pairs)
    spread = sum(float(_spread(other).norm() ** 2) for _, other in pairs)
    if spread == 0:
        return float("inf") if deviation else 0.0
    return float((deviation / spread) ** 0.5)


def _spread(expected: torch.Tensor) -> torch.Tensor:
    spread: torch.Tensor = (expected - expected.mean(-1, keepdim=True)).norm(dim=-1)
    return spread


def check_agreement(
    model: Any,
    expected: Reference,
    prompts: Tokens,
    generated: object,
    alone: object,
    tolerance: float,
    own_tolerance: float,
) -> Result:
    """Compare logits and generated tokens with the reference, and a batch with its prompts one by one.

    Logits of each prompt, run alone, are those of the reference up to an overall relative error of `tolerance`.
    Each sequence of `generated`, made as one padded batch, is greedy as far as the reference can tell, and is the
    one of `alone`, made from each prompt by itself, up to a relative error of `own_tolerance`.

    Sequences are not compared as text: at the first token that differs from the reference's, the reference
    must have held the chosen one for nearly as good as its own, the gap being within what `tolerance` allows.
    What is no list of token ids for each prompt, or no token id, is left to the generation check.
    """
    logits = [forward_logits(model, inputs_for(model, [prompt]))[0].float().cpu() for prompt in prompts]
    # A vocabulary that was made larger, for a padding token, has more logits; what was there before is what counts.
    logits = [one[:, : other.shape[-1]] for one, other in zip(logits, expected.logits, strict=True)]
    shapes = [(tuple(one.shape), tuple(other.shape)) for one, other in zip(logits, expected.logits, strict=True)]
    if wrong := [Finding("logits", str(other), str(one)) for one, other in shapes if one != other]:
        return Result("agreement", tuple(wrong))
    error = overall_error(logits, expected.logits)
    findings = []
    # Written so that a nan, which compares false to everything, is a finding.
    if not error <= tolerance:
        where, worst = _first_beyond(logits, expected.logits, tolerance)
        findings.append(
            Finding(
                f"logits, first at {where}",
                f"relative error at most {tolerance:g} over all positions",
                f"{error:.3g} (worst position {worst:.3g})",
                NUMERIC,
            )
        )
    same = sum(
        int((one.argmax(-1) == other.argmax(-1)).sum()) for one, other in zip(logits, expected.logits, strict=True)
    )
    positions = sum(len(one) for one in logits)
    ends = end_tokens(model)
    rows, singles = _rows(generated, logits, ends), _rows(alone, logits, ends)
    if rows:
        findings += _choices(expected, rows, tolerance)
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
    """`generated` as lists of token ids, each up to its end token.

    Empty when it is something else, which the generation check reports.
    """
    rows = [until_end(row, ends) for row in token_rows(generated) or []]
    known = all(0 <= token < logits[0].shape[-1] for row in rows for token in row)
    return rows if known and len(rows) == len(logits) else []


def _first_beyond(
    logits: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], tolerance: float
) -> tuple[str, float]:
    """The first position whose own error is beyond `tolerance`, in words, and the worst error of any."""
    errors = [relative_errors(one, other).tolist() for one, other in zip(logits, expected, strict=True)]
    worst = max(float("inf") if isnan(error) else error for row in errors for error in row)
    for number, row in enumerate(errors):
        for position, error in enumerate(row):
            if not error <= tolerance:
                return f"prompt {number}, position {position} of {len(row)}", worst
    return "no single position", worst


def _choices(expected: Reference, generated: Sequence[Sequence[int]], tolerance: float) -> list[Finding]:
    findings = []
    for number, (row, tokens, steps) in enumerate(zip(generated, expected.tokens, expected.steps, strict=True)):
        step = next((at for at, pair in enumerate(zip(row, tokens, strict=False)) if pair[0] != pair[1]), None)
        if step is None:
            continue
        if not 0 <= row[step] < steps.shape[-1]:
            # A token that a larger vocabulary has: the reference says nothing of it.
            findings.append(
                Finding(f"prompt {number}, new token {step}", f"token {tokens[step]}", f"token {row[step]}", CHOICE)
            )
            continue
        # Beyond the first difference the two continue from other prompts: only this step can be judged.
        logits = steps[step]
        order = logits.argsort(descending=True).tolist()
        gap = float(logits[tokens[step]] - logits[row[step]])
        allowed = allowed_gap(logits, tolerance)
        if not gap <= allowed:
            known = _misplaced(number, generated, expected)
            what, hint = known or (f"number {order.index(row[step]) + 1} in its ranking", CHOICE)
            findings.append(
                Finding(
                    f"prompt {number}, new token {step}",
                    f"token {tokens[step]}, or one within {allowed:.3g} of its logit",
                    f"token {row[step]}, {gap:.3g} below it ({what})",
                    hint,
                )
            )
    return findings


def _misplaced(number: int, rows: Sequence[Sequence[int]], expected: Reference) -> tuple[str, Hint] | None:
    """What a row is, and why, where it is made of the right tokens in the wrong place."""
    row = list(rows[number])
    tokens = [list(one)[: len(given)] for given, one in zip(rows, expected.tokens, strict=True)]
    for other, theirs in enumerate(tokens):
        if other != number and row == theirs:
            return f"all of the row is prompt {other}'s", ROW_ORDER
    # Whatever is cut wrongly is so in every row; one row alone may look like it by chance.
    pairs = [(list(given), right) for given, right in zip(rows, tokens, strict=True)]
    if all(len(given) > 2 and given[:-1] == right[1:] for given, right in pairs):
        return "the row is right from its second token on, and begins with that", SHIFTED
    if all(len(given) > 2 and given[1:] == right[:-1] for given, right in pairs):
        return f"the row is right, and {row[0]} is in front of it", SHIFTED
    return None


def _batch_effects(
    model: Any, prompts: Tokens, batch: Sequence[Sequence[int]], alone: Sequence[Sequence[int]], tolerance: float
) -> list[Finding]:
    """Where a prompt in the batch goes on otherwise than by itself, and the model was not undecided.

    Not whether each token is the best by the logits: generation may forbid or force tokens, in both alike.
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
                    CHOICE,
                )
            )
    return findings


def allowed_gap(logits: torch.Tensor, tolerance: float) -> float:
    """How far a token's logit may be below the largest of `logits` for noise to have chosen it."""
    # Two logits can each be off by the largest deviation of one: the norm spread over few entries.
    return 2 * tolerance * float((logits - logits.mean()).std()) * PEAK


PEAK: Final = 4.0
"""How many standard deviations the largest of a few hundred normally distributed errors reaches, rounded up."""


def _agreement(exam: Examination) -> Result:
    from pytest_llmdevice.checks.many_prompts import ended_findings, many_prompts_findings

    own = generation_tolerance(exam.cell)
    rows, alone = exam.generated.first, exam.generated.alone
    result = check_agreement(exam.model, exam.reference, exam.prompts, rows, alone, exam.logits_tolerance, own)
    if result.findings or exam.generated.error is not None:
        # What is wrong with a few prompts is wrong with many.
        return result
    findings, evidence = many_prompts_findings(exam.target, exam.model, exam.prompts, alone, own)
    if not findings:
        findings, more = ended_findings(exam.target, exam.model, exam.prompts, rows)
        evidence = {**evidence, **more}
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
    after="generation",
)
