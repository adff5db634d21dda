"""Checks that the logits of a token depend only on the tokens before it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.far_positions import wrong_at_far_positions
from pytest_llmdevice.checks.noise import FLOAT32, Gap, Inspection, Limits, gap, gap_finding
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.tolerance import BY_DTYPE, tolerance
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.sequences import FAR, LEAK, LENGTH, NOISE, UNSCALED
from pytest_llmdevice.diagnosis.hints.values import NUMERIC
from pytest_llmdevice.inference.stepping import Stepper, longest_text_length, random_text, scaled_text_length
from pytest_llmdevice.loading.pretrained import from_pretrained
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.model.lengths import sliding_window
from pytest_llmdevice.model.wrappers import configuration_of
from pytest_llmdevice.oracle.plain_load import plain_skeleton
from pytest_llmdevice.oracle.process import ask

if TYPE_CHECKING:
    import torch

    from pytest_llmdevice.diagnosis import Hint

Tokens = Sequence[Sequence[int]]

SHORT: Final = 24
"""Tokens of a short text: more than the zoo's sliding windows, and few enough for any model."""

FAR_FROM: Final = 256
"""The first position that bfloat16 cannot distinguish from the next."""

_EXCHANGED: Final = (SHORT, FAR_FROM + 1)
"""Lengths of the texts whose last tokens are exchanged for others."""

_CUT: Final = 8
"""The number of exchanged tokens at the end of a long text; in a short text it is half of them."""


def check_prefix(
    model: Any, cell: Cell, prompts: Tokens, checkpoint: str | None = None, allowed: float | None = None
) -> Result:
    """Check that the logits of the first tokens of a text are the same without the rest, and with another rest.

    Other tokens later in a text of the same length must change nothing; a change is a mask error, because equal
    shapes have equal rounding. A prefix alone may differ from the same positions in the whole text by the rounding
    that its shape causes: nothing in most cells, 1e-5 in float32. The logits of a long text must be those of a plain
    load, because errors of far positions do not show in short texts; and so must those of a text that is long enough
    for positions to be scaled by its length, where the checkpoint says that they are.

    Args:
        model: the model under test.
        cell: what was requested.
        prompts: token ids of each prompt.
        checkpoint: the local folder of the model; without it there is no comparison with a plain load.
        allowed: the largest relative error to a plain load; by default that of the dtype and quantization.
    """
    wholes: list[torch.Tensor] = []
    found, evidence = _inspect(model, cell, prompts, wholes)
    findings = list(found)
    if checkpoint is not None and wholes and not findings:
        far, counts = _far(model, wholes[0], cell, prompts, checkpoint, allowed)
        scaled, more = _past_the_original(model, cell, prompts, checkpoint, allowed)
        findings += [*far, *scaled]
        evidence |= {**counts, **more}
    return Result("prefix", tuple(findings), evidence)


def _inspect(model: Any, cell: Cell, prompts: Tokens, wholes: list[torch.Tensor]) -> Inspection:
    """Compare prefixes and exchanged texts with the whole text, whose logits are appended to `wholes`."""
    limits = Limits.of(cell)
    stepper = Stepper(model, max(prompts, key=len))
    length = longest_text_length(model, prompts)
    tokens, other = random_text(prompts, length), random_text(prompts, length, seed=1)
    whole = _after_a_short_text(stepper, tokens)
    wholes.append(whole)
    parts = {cut: stepper(tokens[:cut])[0] for cut in _cuts(model, length)}
    findings: list[Finding] = []
    exchanges = [(size, size // 2 if size <= SHORT else size - _CUT) for size in parts if size in _EXCHANGED]
    for size, cut in exchanges:
        after, _ = stepper([*tokens[:cut], *other[cut:size]])
        difference = gap(after[:cut], parts[size][:cut], limits)
        if not difference.within(limits):
            where = f"logits before token {cut} of {size}, the tokens from there on being exchanged"
            # Dropout makes other logits of the same text too.
            again = gap(stepper(tokens[:size])[0], parts[size], limits)
            hint = LEAK if isfinite(difference.worst) and again.within(limits) else None
            findings.append(gap_finding(where, difference, limits, hint))
    exchanged = tuple(findings)
    worst = 0.0
    for cut, part in parts.items():
        difference = gap(part, whole[:cut], limits)
        worst = max(worst, difference.worst)
        if not difference.within(limits):
            where = f"logits of the first {cut} tokens by themselves"
            of = f"those of the whole text of {length} tokens"
            hint = exchanged[0].hint if exchanged else _length_hint(difference)
            findings.append(gap_finding(where, difference, limits, hint, of=of))
    evidence: dict[str, int | float | str] = {
        "positions": sum(parts),
        "exchanges": len(exchanges),
        "longest text": length,
        "worst error": f"{worst:.2g}",
        "tolerance": f"{limits.single:.2g}",
    }
    return findings, evidence


def _length_hint(difference: Gap) -> Hint | None:
    """The usual cause of a difference that depends on the length: rounding if it is small, else a table or window.

    Neither is it where only some positions differ, and by a lot: a router that takes another expert does that.
    """
    if difference.worst <= BY_DTYPE["bfloat16"]:
        return NOISE
    return LENGTH if 2 * difference.beyond > difference.positions and isfinite(difference.worst) else None


def _cuts(model: Any, length: int) -> list[int]:
    """The lengths of prefixes: one token, around a sliding window, a short text, and beyond `FAR_FROM`."""
    window = sliding_window(model)
    around = (window - 1, window, window + 1) if window is not None else (16, 17)
    cuts = (1, *around, *_EXCHANGED)
    return sorted({cut for cut in cuts if 0 < cut < length})


def _far(
    model: Any, own: torch.Tensor, cell: Cell, prompts: Tokens, checkpoint: str, allowed: float | None
) -> tuple[list[Finding], dict[str, int]]:
    """Compare the logits of far positions with those of a plain load with the same attention implementation."""
    length = longest_text_length(model, prompts)
    tokens = tuple(random_text(prompts, length))
    if length <= FAR_FROM:
        return [], {}
    plain = _plain_logits(checkpoint, _plain_cell(model, cell), tokens, _source(prompts))
    # An enlarged vocabulary has more logits.
    own = own[:, : plain.shape[-1]]
    if own.shape != plain.shape:
        return [], {}
    limit = _far_limit(cell) if allowed is None else allowed
    limits = Limits(limit, float("inf"))
    far = gap(own[FAR_FROM:], plain[FAR_FROM:], limits)
    if far.within(limits):
        return [], {"far positions": length - FAR_FROM}
    near = gap(own[:SHORT], plain[:SHORT], limits).overall
    where = f"logits from position {FAR_FROM} of {length} on"
    actual = f"{far.overall:.3g} (the first {SHORT}: {near:.3g})"
    hint: Hint | None = NUMERIC if isfinite(far.overall) else None
    if near < far.overall / 2:
        hint = FAR if wrong_at_far_positions(model, tokens[:SHORT], own, plain, checkpoint, cell, limit) else None
    return [Finding(where, f"a plain load's, relative error at most {limit:.2g}", actual, hint, size=far.overall)], {}


def _past_the_original(
    model: Any, cell: Cell, prompts: Tokens, checkpoint: str, allowed: float | None
) -> tuple[list[Finding], dict[str, int]]:
    """Compare a text for whose length the checkpoint has positions scaled with the same of a plain load."""
    length = scaled_text_length(plain_skeleton(checkpoint, cell))
    if length is None:
        return [], {}
    tokens = tuple(random_text(prompts, length))
    plain = _plain_logits(checkpoint, _plain_cell(model, cell), tokens, _source(prompts))
    stepper = Stepper(model, _source(prompts))
    own = stepper(tokens)[0][:, : plain.shape[-1]]
    # What comes next is to find the model as it was: a short text brings the frequencies back, and only that.
    stepper(tokens[:1])
    if own.shape != plain.shape:
        return [], {}
    limit = _far_limit(cell) if allowed is None else allowed
    difference = gap(own, plain, Limits(limit, float("inf")))
    if difference.within(Limits(limit, float("inf"))):
        return [], {"scaled positions": length}
    where = f"logits of a text of {length} tokens, for which positions are scaled"
    wanted = f"a plain load's, relative error at most {limit:.2g}"
    hint: Hint | None = UNSCALED if isfinite(difference.overall) else None
    return [Finding(where, wanted, f"{difference.overall:.3g}", hint, size=difference.overall)], {}


def _plain_cell(model: Any, cell: Cell) -> Cell:
    attention = getattr(configuration_of(model), "_attn_implementation", None)
    attention = attention if attention in _PLAIN else "eager"
    return Cell("plain", "cpu", cell.dtype, cell.quantization, attention=attention)


def _source(prompts: Tokens) -> tuple[int, ...]:
    longest: Sequence[int] = max(prompts, key=len)
    return tuple(longest)


_PLAIN: Final = frozenset({"eager", "sdpa"})
"""The implementations of attention that run on the CPU."""


def _far_limit(cell: Cell) -> float:
    """The largest relative error of `cell` to a plain load on the CPU.

    On the CPU two loads give equal bits, and rotary frequencies that were rounded to bfloat16 cause errors of 0.02 to
    0.04 in the dense cells of the zoo. Kernels of another device cause errors of that size too.
    """
    if cell.quantization != "none" or not (cell.kind == "cpu" or cell.simulated):
        return tolerance(cell)
    return FLOAT32 if cell.dtype == "float32" else BY_DTYPE[cell.dtype] / 4


@lru_cache(maxsize=16)
def _plain_logits(checkpoint: str, cell: Cell, tokens: tuple[int, ...], source: tuple[int, ...]) -> torch.Tensor:
    return ask(_logits_of, checkpoint, cell, tokens, source)


def _logits_of(checkpoint: str, cell: Cell, tokens: tuple[int, ...], source: tuple[int, ...]) -> torch.Tensor:
    return _after_a_short_text(Stepper(from_pretrained(checkpoint, cell), source), tokens)


def _after_a_short_text(stepper: Stepper, tokens: Sequence[int]) -> torch.Tensor:
    """The logits of `tokens`, for which a short text is read first: BigBird leaves its sparse attention with one."""
    stepper(tokens[:1])
    return stepper(tokens)[0]


PREFIX_CHECK: Final = Check(
    "prefix",
    lambda exam: check_prefix(exam.model, exam.cell, exam.prompts, exam.checkpoint, exam.tolerance),
    (
        "a text says the same whether more follows or not: numeric noise is told from a mask that lets "
        "later tokens through"
    ),
    "A token is influenced by what comes after it.",
    failure="numeric",
    origin=True,
    behaviour=True,
    after="padding",
)
