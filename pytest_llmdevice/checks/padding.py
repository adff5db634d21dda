"""The check that padding and masks change nothing: a prompt in a padded batch has the logits that it has alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.agreement import overall_error
from pytest_llmdevice.checks.examination import Check, Examination
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.tolerance import generation_tolerance
from pytest_llmdevice.diagnosis import Finding, finding_from_exception
from pytest_llmdevice.diagnosis.hints import generation
from pytest_llmdevice.inference.generation import batch, inputs_for, is_encoder_decoder, pad_token
from pytest_llmdevice.inference.logits import forward_logits
from pytest_llmdevice.loading.pretrained import from_pretrained
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.model.device_map import embedding_device
from pytest_llmdevice.model.wrappers import accepted_arguments, configuration_of, input_embedding

if TYPE_CHECKING:
    import torch

Tokens = Sequence[Sequence[int]]

LENGTHS: Final = (284, 300)
"""Tokens of the long prompts: beyond 256 a bfloat16 counts in steps of two."""

UNLIMITED: Final = 1 << 30

TAIL: Final = 32
"""Tokens at the end of a prompt that are measured by themselves too: there positions are largest."""


def check_padding(model: Any, cell: Cell, prompts: Tokens, checkpoint: str, tolerance: float) -> Result:
    """Logits of a padded batch are those of its prompts one by one, up to a relative error of `tolerance`.

    One batch has a short prompt and two long ones, another one has a row that is nothing but padding. A mask that adds
    -inf to what is hidden gives finite logits. Padding is where generation puts it: on the left of a decoder. What a
    plain load of `checkpoint` for the same cell does as well is the architecture's, and no finding.

    Args:
        model: the model.
        cell: what was asked for.
        prompts: lists of token ids.
        checkpoint: the local folder that the model was loaded from.
        tolerance: the largest relative error of a model against itself, see `tolerance.generation_tolerance`.
    """
    given = long_prompts(model, prompts)
    findings = []
    short = [*prompts, []] if given else []
    error, blank = padded_error(model, given), padded_error(model, short)
    evidence: dict[str, int | float | str] = {
        "prompts": len(given),
        "tokens": sum(map(len, given)),
        "relative error": f"{max(error, blank):.3g}",
        "tolerance": f"{tolerance:g}",
    }
    # Written so that a nan, which compares false to everything, is a finding.
    if not error <= tolerance and not _plain_too("padded_error", checkpoint, cell, given, error):
        findings.append(
            Finding(
                "logits of a padded batch",
                f"those of its prompts alone, within {tolerance:g}",
                f"{error:.3g} away",
                generation.PADDING,
            )
        )
    elif not blank <= tolerance and not _plain_too("padded_error", checkpoint, cell, short, blank):
        findings.append(
            Finding(
                "logits of a batch with a row that is all padding",
                f"those of the other prompts alone, within {tolerance:g}",
                "nan" if blank != blank else f"{blank:.3g} away",  # noqa: PLR0124  # a nan is not itself
                generation.MASKED_ROW,
            )
        )
    findings += _additive(model, cell, prompts, checkpoint, evidence)
    return Result("padding", tuple(findings), evidence)


def long_prompts(model: Any, prompts: Tokens) -> list[list[int]]:
    """The shortest of `prompts`, and two of `LENGTHS` made of all of them, or of as many tokens as the model takes."""
    config = configuration_of(model)
    text = getattr(config, "get_text_config", lambda: config)()
    limit = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None) or UNLIMITED
    whole = [token for prompt in prompts for token in prompt]
    if not whole:
        return []
    spun = whole * (max(LENGTHS) // len(whole) + 1)
    shortest = min(prompts, key=len)
    longest = max(map(len, prompts))
    lengths = [min(length, max(limit - 16 * at, longest)) for at, length in enumerate(reversed(LENGTHS))]
    return [list(shortest), *([*spun[at:], *spun[:at]][:length] for at, length in enumerate(sorted(lengths)))]


def padded_error(model: Any, prompts: Tokens) -> float:
    """How far the logits of `prompts` in one padded batch are from those of each alone; empty ones are rows of padding.

    The relative error of `agreement.overall_error`, of the prompt that has the largest; nan where a logit is nan.
    """
    left = not is_encoder_decoder(model)
    inputs = batch(prompts, pad=pad_token(model), device=embedding_device(model), left=left)
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
    """How many logits of `prompts` are inf or nan under a mask that adds -inf to all that a token must not see."""
    import torch

    inputs = inputs_for(model, prompts)
    mask = inputs["attention_mask"].bool()
    width = mask.shape[1]
    seen = torch.ones(width, width, dtype=torch.bool, device=mask.device).tril()[None] & mask[:, None]
    # Padding sees itself: of a row that sees nothing, a softmax over -inf is nan by definition.
    seen = seen | torch.eye(width, dtype=torch.bool, device=mask.device)[None]
    weight = getattr(input_embedding(model), "weight", None)
    dtype = weight.dtype if weight is not None else torch.float32
    added = torch.zeros(seen.shape, dtype=dtype if dtype.is_floating_point else torch.float32, device=mask.device)
    added = added.masked_fill(~seen, float("-inf"))[:, None]
    logits = forward_logits(model, {**inputs, "attention_mask": added, **_positions(model, inputs["attention_mask"])})
    real = logits[mask.to(logits.device)]
    return float((~real.isfinite()).sum())


def _additive(model: Any, cell: Cell, prompts: Tokens, checkpoint: str, evidence: dict[str, Any]) -> list[Finding]:
    if is_encoder_decoder(model) or "attention_mask" not in accepted_arguments(model):
        return []
    try:
        bad = masked_nonfinite(model, prompts)
    except Exception as error:  # noqa: BLE001  # many classes take masks of two dimensions only
        if _plain_too("masked_nonfinite", checkpoint, cell, prompts, None):
            return []
        return [finding_from_exception(error, model, doing="a mask of four dimensions with -inf")]
    evidence["-inf masks"] = len(prompts)
    if bad and not _plain_too("masked_nonfinite", checkpoint, cell, prompts, bad):
        actual = f"{bad:g} are inf or nan"
        return [Finding("logits under a mask with -inf", "all finite", actual, generation.MASKED_ROW)]
    return []


_NOISE: Final = 1.5
"""How much further than a plain load a model may be off where a plain load is off too."""


def _plain_too(measure: str, checkpoint: str, cell: Cell, prompts: Tokens, found: float | None) -> bool:
    """Whether a plain load of the same cell is as far off as `found`, or raises too where `found` is None."""
    plain = _plain(measure, checkpoint, cell, tuple(map(tuple, prompts)))
    if plain is None or found is None:
        return plain is None and found is None
    return plain != plain or found <= _NOISE * plain  # noqa: PLR0124  # a nan is not itself


@cache
def _plain(measure: str, checkpoint: str, cell: Cell, prompts: tuple[tuple[int, ...], ...]) -> float | None:
    """What `measure` gives of a plain load; None where it raises."""
    model = from_pretrained(checkpoint, cell, device_map={"": str(cell.torch_device)})
    try:
        return {"padded_error": padded_error, "masked_nonfinite": masked_nonfinite}[measure](model, prompts)
    except Exception:  # noqa: BLE001  # that it does is the answer
        return None


def _positions(model: Any, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """`position_ids` as `generate` makes them, where the model takes them: forward alone counts padding too."""
    if is_encoder_decoder(model) or "position_ids" not in accepted_arguments(model):
        return {}
    return {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}


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
    after="agreement",
)
