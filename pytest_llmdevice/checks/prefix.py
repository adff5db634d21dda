"""The check that what a model says of a token depends on the tokens before it and on nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.examination import Check
from pytest_llmdevice.checks.noise import FLOAT32, Gap, Inspection, Limits, finding, gap, own_faults
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.tolerance import BY_DTYPE, tolerance
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.sequences import FAR, LEAK, LENGTH, NOISE
from pytest_llmdevice.diagnosis.hints.values import NUMERIC
from pytest_llmdevice.inference.stepping import Stepper, longest_text_length, random_text, sliding_window
from pytest_llmdevice.loading.pretrained import from_pretrained
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.model.wrappers import configuration_of

if TYPE_CHECKING:
    import torch

Tokens = Sequence[Sequence[int]]

SHORT: Final = 24
"""Tokens of a short text: beyond the zoo's sliding windows, within what most models read in one piece."""

FAR_FROM: Final = 256
"""The first position that bfloat16 cannot tell from the next."""

_EXCHANGED: Final = (SHORT, FAR_FROM + 1)
"""Lengths of prefixes at which later tokens are exchanged for others."""

_CUT: Final = 8
"""How many of them, at the end of a long one; half of a short one."""


def check_prefix(
    model: Any, cell: Cell, prompts: Tokens, checkpoint: str | None = None, allowed: float | None = None
) -> Result:
    """The logits of the first tokens of a text are the same without the rest, and with another rest.

    Three things are held apart. Other tokens later in a text of the same length must change nothing: what they change
    is a mask error, since shapes and therefore roundings are the same. A prefix alone may differ from the same
    positions in the whole text by what its shape does to the rounding: nothing in most cells, 1e-5 in float32. And a
    long text must say what a plain load says, which short ones alone do not show of positions.

    Args:
        model: the model under test.
        cell: what was asked for.
        prompts: token ids that the model is known to read.
        checkpoint: the local folder that it was loaded from; without it there is no comparison with a plain load.
        allowed: the largest relative error to a plain load, None for the one by dtype and quantization.
    """
    wholes: list[torch.Tensor] = []
    found, evidence = own_faults(lambda one: _inspect(one, cell, prompts, wholes), model, cell, checkpoint)
    findings = list(found)
    if checkpoint is not None and wholes and not findings:
        far, counts = _far(model, wholes[0], cell, prompts, checkpoint, allowed)
        findings += far
        evidence |= counts
    return Result("prefix", tuple(findings), evidence)


def _inspect(model: Any, cell: Cell, prompts: Tokens, wholes: list[torch.Tensor]) -> Inspection:
    """What is found in `model`, whose logits of the whole text are added to `wholes`."""
    limits = Limits.of(cell)
    feed = Stepper(model, max(prompts, key=len))
    length = longest_text_length(model, prompts)
    tokens, other = random_text(prompts, length), random_text(prompts, length, seed=1)
    whole, _ = feed(tokens)
    wholes.append(whole)
    parts = {cut: feed(tokens[:cut])[0] for cut in _cuts(model, length)}
    findings: list[Finding] = []
    exchanges = [(size, size // 2 if size <= SHORT else size - _CUT) for size in parts if size in _EXCHANGED]
    for size, cut in exchanges:
        after, _ = feed([*tokens[:cut], *other[cut:size]])
        found = gap(after[:cut], parts[size][:cut], limits)
        if not found.within(limits):
            where = f"logits before token {cut} of {size}, the tokens from there on being exchanged"
            findings.append(finding(where, found, limits, LEAK))
    leaking = bool(findings)
    worst = 0.0
    for cut, part in parts.items():
        found = gap(part, whole[:cut], limits)
        worst = max(worst, found.worst)
        if not found.within(limits):
            where = f"logits of the first {cut} tokens by themselves"
            of = f"those of the whole text of {length} tokens"
            findings.append(finding(where, found, limits, LEAK if leaking else _kind(found), of=of))
    evidence: dict[str, int | float | str] = {
        "positions": sum(parts),
        "exchanges": len(exchanges),
        "longest text": length,
        "worst error": f"{worst:.2g}",
        "tolerance": f"{limits.single:.2g}",
    }
    return findings, evidence


def _kind(found: Gap) -> Any:
    """Roundings are everywhere and small; another table or window is not."""
    return NOISE if found.worst <= BY_DTYPE["bfloat16"] else LENGTH


def _cuts(model: Any, length: int) -> list[int]:
    """Lengths of prefixes: one token, around a sliding window, a few, and beyond `FAR_FROM`."""
    window = sliding_window(model)
    around = (window - 1, window, window + 1) if window is not None else (16, 17)
    cuts = (1, *around, *_EXCHANGED)
    return sorted({cut for cut in cuts if 0 < cut < length})


def _far(
    model: Any, own: torch.Tensor, cell: Cell, prompts: Tokens, checkpoint: str, allowed: float | None
) -> tuple[list[Finding], dict[str, int]]:
    """Compare what the model says of far positions with a plain load's of the same attention."""
    length = longest_text_length(model, prompts)
    tokens = tuple(random_text(prompts, length))
    if length <= FAR_FROM:
        return [], {}
    longest: Sequence[int] = max(prompts, key=len)
    source = tuple(longest)
    attention = getattr(configuration_of(model), "_attn_implementation", None)
    plain = _plain_logits(
        checkpoint,
        Cell("plain", "cpu", cell.dtype, cell.quantization, attention=attention if attention in _PLAIN else "eager"),
        tokens,
        source,
    )
    # A larger vocabulary has more logits.
    own = own[:, : plain.shape[-1]]
    if own.shape != plain.shape:
        return [], {}
    limit = _far_limit(cell) if allowed is None else allowed
    limits = Limits(limit, float("inf"))
    found = gap(own[FAR_FROM:], plain[FAR_FROM:], limits)
    if found.within(limits):
        return [], {"far positions": length - FAR_FROM}
    near = gap(own[:SHORT], plain[:SHORT], limits).overall
    where = f"logits from position {FAR_FROM} of {length} on"
    actual = f"{found.overall:.3g} (the first {SHORT}: {near:.3g})"
    hint = FAR if near < found.overall / 2 else NUMERIC
    return [Finding(where, f"a plain load's, relative error at most {limit:.2g}", actual, hint)], {}


_PLAIN: Final = frozenset({"eager", "sdpa"})
"""The implementations of attention that the cpu has."""


def _far_limit(cell: Cell) -> float:
    """The largest relative error to a plain load on the cpu.

    There, two loads are equal to the last bit; frequencies that were rounded to bfloat16 are 0.02 to 0.04 off in the
    dense cells of the zoo, no more than the roundings of another kernel on another device.
    """
    if cell.quantization != "none" or not (cell.kind == "cpu" or cell.simulated):
        return tolerance(cell)
    return FLOAT32 if cell.dtype == "float32" else BY_DTYPE[cell.dtype] / 4


@lru_cache(maxsize=16)
def _plain_logits(checkpoint: str, cell: Cell, tokens: tuple[int, ...], source: tuple[int, ...]) -> torch.Tensor:
    return Stepper(from_pretrained(checkpoint, cell), source)(tokens)[0]


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
    after="padding",
)
