"""Checks that padding and masks do not change logits: a padded batch gives the logits of its prompts alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.differences import overall_error
from pytest_llmdevice.checks.examination import Examination
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.tolerance import generation_tolerance
from pytest_llmdevice.diagnosis import Finding, finding_from_exception
from pytest_llmdevice.diagnosis.hints import generation
from pytest_llmdevice.errors import of_target
from pytest_llmdevice.inference.generation import batch, inputs_for, is_encoder_decoder, pad_token
from pytest_llmdevice.inference.logits import forward_logits
from pytest_llmdevice.loading.pretrained import from_pretrained
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.model.device_map import embedding_device, restore_offloading
from pytest_llmdevice.model.lengths import first_position, position_limit
from pytest_llmdevice.model.wrappers import accepted_arguments, input_embedding
from pytest_llmdevice.oracle.process import ask

if TYPE_CHECKING:
    import torch

Tokens = Sequence[Sequence[int]]

LENGTHS: Final = (284, 300)
"""Tokens of the long prompts: more than 256, beyond which bfloat16 represents only every second integer."""

TAIL: Final = 32
"""The number of tokens at the end of a prompt, where positions are largest, that are also compared separately."""


def check_padding(model: Any, cell: Cell, prompts: Tokens, checkpoint: str, tolerance: float) -> Result:
    """Check that the logits of a padded batch are those of its prompts alone, up to a relative error of `tolerance`.

    One batch has a short prompt and two long ones, another has a row with padding only, and one prompt is padded
    though nothing is beside it, as where inputs are padded to a multiple: code that leaves masks out of batches of one
    has no other chance to be wrong. A mask that adds -inf to hidden positions must give finite logits. Padding is on
    the side where generation puts it: the left for a decoder.

    Args:
        model: the model.
        cell: what was requested.
        prompts: token ids of each prompt.
        checkpoint: the local folder of the model.
        tolerance: the largest relative error of a model to itself, see `tolerance.generation_tolerance`.
    """
    given = long_prompts(model, prompts)
    findings = []
    single = [given[0], given[1][: 2 * len(given[0])]] if given else []
    short = [*prompts, []] if given else []
    alone = f"alone, within {tolerance:g}"
    compared = (
        ("logits of a padded batch", f"those of its prompts {alone}", padded_error(model, given), generation.PADDING),
        (
            "logits of one prompt that is padded, with nothing beside it",
            f"those of the prompt {alone}",
            padded_error(model, single, rows=1),
            generation.PADDING,
        ),
        (
            "logits of a batch with a row that is all padding",
            f"those of the other prompts {alone}",
            padded_error(model, short),
            generation.MASKED_ROW,
        ),
    )
    evidence: dict[str, int | float | str] = {
        "prompts": len(given),
        "tokens": sum(map(len, given)),
        "relative error": f"{max(error for _, _, error, _ in compared):.3g}",
        "tolerance": f"{tolerance:g}",
    }
    for where, expected, error, hint in compared:
        # In this form a nan, which compares false with everything, is a finding.
        if not error <= tolerance:
            actual = f"{error:.3g} away" if isfinite(error) else f"{error:.3g}"
            likely = hint if isfinite(error) else generation.MASKED_ROW
            findings.append(Finding(where, expected, actual, likely, size=error))
            break
    findings += _additive(model, cell, prompts, checkpoint, evidence)
    return Result("padding", tuple(findings), evidence)


def long_prompts(model: Any, prompts: Tokens) -> list[list[int]]:
    """The shortest of `prompts`, and two prompts of `LENGTHS` made of all of them, shorter if the model needs it."""
    limit = position_limit(model)
    whole = [token for prompt in prompts for token in prompt]
    if not whole:
        return []
    repeated = whole * (max(LENGTHS) // len(whole) + 1)
    shortest = min(prompts, key=len)
    longest = max(map(len, prompts))
    lengths = [min(length, max(limit - 16 * at, longest)) for at, length in enumerate(reversed(LENGTHS))]
    return [list(shortest), *([*repeated[at:], *repeated[:at]][:length] for at, length in enumerate(sorted(lengths)))]


def padded_error(model: Any, prompts: Tokens, rows: int | None = None) -> float:
    """The relative error of logits in one padded batch to those of each prompt alone, see `agreement.overall_error`.

    It is the largest of any prompt, and nan if a logit is nan. Empty prompts are rows with padding only. Of a batch
    that is cut, the model gets the first `rows`, padded as before.
    """
    left = not is_encoder_decoder(model)
    inputs = batch(prompts, pad=pad_token(model), device=embedding_device(model), left=left)
    prompts, inputs = prompts[:rows], {name: tensor[:rows] for name, tensor in inputs.items()}
    logits = forward_logits(model, {**inputs, **_positions(model, inputs["attention_mask"])})
    width = logits.shape[1]
    errors = []
    for row, prompt in zip(logits, prompts, strict=True):
        if not prompt:
            continue
        alone = forward_logits(model, inputs_for(model, [prompt]))[0].float().cpu()
        real = (row[width - len(prompt) :] if left else row[: len(prompt)]).float().cpu()
        errors += [overall_error([real], [alone]), overall_error([real[-TAIL:]], [alone[-TAIL:]])]
    return next((error for error in errors if error != error), max(errors, default=0.0))  # noqa: PLR0124  # a nan


def masked_nonfinite(model: Any, prompts: Tokens) -> float:
    """The number of logits of `prompts` that are inf or nan under a mask that adds -inf to hidden positions."""
    import torch

    inputs = inputs_for(model, prompts)
    mask = inputs["attention_mask"].bool()
    width = mask.shape[1]
    visible = torch.ones(width, width, dtype=torch.bool, device=mask.device).tril()[None] & mask[:, None]
    # Padding sees itself, because a softmax over -inf only is nan by definition.
    visible = visible | torch.eye(width, dtype=torch.bool, device=mask.device)[None]
    weight = getattr(input_embedding(model), "weight", None)
    dtype = weight.dtype if weight is not None else torch.float32
    added = torch.zeros(visible.shape, dtype=dtype if dtype.is_floating_point else torch.float32, device=mask.device)
    added = added.masked_fill(~visible, float("-inf"))[:, None]
    logits = forward_logits(model, {**inputs, "attention_mask": added, **_positions(model, inputs["attention_mask"])})
    real = logits[mask.to(logits.device)]
    return float((~real.isfinite()).sum())


def _additive(model: Any, cell: Cell, prompts: Tokens, checkpoint: str, evidence: dict[str, Any]) -> list[Finding]:
    if is_encoder_decoder(model) or "attention_mask" not in accepted_arguments(model):
        return []
    try:
        bad = masked_nonfinite(model, prompts)
    except of_target() as error:
        restore_offloading(model)
        # Many classes take masks of two dimensions only.
        if not _takes_additive(checkpoint, cell, tuple(map(tuple, prompts))):
            evidence["-inf masks"] = "none, the class takes masks of two dimensions"
            return []
        return [finding_from_exception(error, model, doing=FOUR_DIMENSIONS)]
    evidence["-inf masks"] = len(prompts)
    if bad:
        actual = f"{bad:g} are inf or nan"
        return [Finding("logits under a mask with -inf", "all finite", actual, generation.MASKED_ROW, size=bad)]
    return []


@cache
def _takes_additive(checkpoint: str, cell: Cell, prompts: tuple[tuple[int, ...], ...]) -> bool:
    return ask(_plain_takes_additive, checkpoint, Cell(cell.model, "cpu", cell.dtype), prompts)


def _plain_takes_additive(checkpoint: str, cell: Cell, prompts: tuple[tuple[int, ...], ...]) -> bool:
    try:
        masked_nonfinite(from_pretrained(checkpoint, cell), prompts)
    except Exception:  # noqa: BLE001  # whether it raises is the answer
        return False
    return True


FOUR_DIMENSIONS: Final = "a mask of four dimensions with -inf"


def _positions(model: Any, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """The `position_ids` of the tokens, if the model takes them; a forward pass alone counts padding.

    They begin where the class begins by itself, which is not where `generate` does (RoBERTa, transformers 5).
    """
    if is_encoder_decoder(model) or "position_ids" not in accepted_arguments(model):
        return {}
    return {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0) + first_position(model)}


def _padding(exam: Examination) -> Result:
    own = generation_tolerance(exam.cell)
    return check_padding(exam.model, exam.cell, exam.prompts, exam.checkpoint, own)


PADDING_CHECK: Final = Check(
    "padding",
    _padding,
    "left-padded rows say what they say alone, also beyond 256 positions; masks give no NaN",
    "Padding changes what a prompt is answered.",
    failure="numeric",
    origin=True,
    behaviour=True,
    after="agreement",
)
