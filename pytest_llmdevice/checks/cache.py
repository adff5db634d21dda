"""Checks that a KV cache changes neither logits nor precision nor devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.beams import beam_findings, static_findings
from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.examination import Examination
from pytest_llmdevice.checks.noise import Inspection, Limits, gap, gap_finding
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.steps import NEW, compare_steps, step_findings, watch_generation
from pytest_llmdevice.diagnosis import Finding, finding_from_exception
from pytest_llmdevice.diagnosis.errors import hint_of
from pytest_llmdevice.diagnosis.failure import excerpt
from pytest_llmdevice.diagnosis.hints.sequences import CACHE_DEVICE, CACHE_DTYPE, CACHED
from pytest_llmdevice.errors import DoesNotApply, first_line, message_of, of_target
from pytest_llmdevice.inference.stepping import LONG_TEXT, Stepper, longest_text_length, random_text
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.vocabulary import dtype_name
from pytest_llmdevice.model.device_map import restore_offloading, with_index
from pytest_llmdevice.model.kv_cache import cache_tensors, caches_used, is_offloaded, is_state_space, layer_devices
from pytest_llmdevice.model.lengths import position_limit
from pytest_llmdevice.model.wrappers import core, generating_module, input_embedding

if TYPE_CHECKING:
    import torch

    from pytest_llmdevice.loading.target import Target

Tokens = Sequence[Sequence[int]]

SHORT: Final = 20
"""Tokens of the short text, which is fed from an empty cache: more than the zoo's sliding windows."""

_STEPS: Final = 4
_TURN: Final = 6
_AFTER: Final = 2


def check_cache(model: Any, cell: Cell, prompts: Tokens, target: Target | None = None) -> Result:
    """Check that logits are the same without a cache, with a carried cache, and token by token from an empty one.

    A long text is fed as a prompt, then single new tokens, then a second prompt (the next turn of a conversation),
    and single new tokens again. A short text is fed token by token, and into a static cache if the class supports it.
    The rows of a beam search's cache must follow their beams. The tensors of all caches, also those of the target's
    own `generate`, must be in the cell's dtype or float32, and on the device on which their layer computes.

    Args:
        model: the model under test.
        cell: what was requested.
        prompts: token ids of each prompt.
        target: the target whose `generate` is checked too; None to leave it out.
    """
    evidence: dict[str, int | float | str] = {}
    findings: list[Finding] = []
    details = ""
    parts: list[Callable[..., Inspection]] = [_carried, _static, _beams]
    if target is not None:
        parts.append(partial(_generated, target=target))
    for inspect in parts:
        # A fault of a plain cache shows in the other kinds of use too, so they are skipped.
        if inspect in (_static, _beams) and (findings or evidence.get("cache") == NONE):
            continue
        try:
            found, counts = inspect(model, cell=cell, prompts=prompts)
        except of_target() as error:
            # The target need not support a static cache or beams, but errors with a known cause are findings.
            restore_offloading(model)
            if inspect not in (_static, _beams) or hint_of(error) is not None:
                found, counts = [finding_from_exception(error, model, doing="cache")], {}
                details = details or excerpt(error)
            else:
                found, counts = (), {f"without{inspect.__name__.replace('_', ' ')}": first_line(error)}
        findings += found
        evidence |= counts
    return Result("cache", tuple(dict.fromkeys(findings)), evidence, details=details)


NONE: Final = "none"


def _carried(model: Any, cell: Cell, prompts: Tokens) -> Inspection:
    """Check logits with a cache that is carried from piece to piece, and the tensors of the cache."""
    limits = Limits.of(cell)
    stepper = Stepper(model, max(prompts, key=len))
    length = min(longest_text_length(model, prompts), LONG_TEXT)
    long, short = random_text(prompts, length), random_text(prompts, min(SHORT, length), seed=2)
    whole, _ = stepper(long)
    prefill = length - _STEPS - _TURN - _AFTER
    first_piece = stepper(long[: max(prefill, 1)], use_cache=True)
    cache = first_piece[1]
    evidence: dict[str, int | float | str] = {"positions": len(whole), "longest text": length}
    if cache is None:
        # Without a cache, generation reads the whole text again at each step.
        return [], {**evidence, "cache": NONE}
    findings = _misplaced(model, cell, cache)
    pieces = _pieces(prefill, turns=not is_state_space(model)) if prefill > 0 else []
    findings += _compare(stepper, long, pieces, whole, limits, first_piece)
    alone, _ = stepper(short)
    singles = _singles(len(short), turns=not is_state_space(model))
    findings += _compare(stepper, short, singles, alone, limits)
    evidence |= {
        "cache": type(cache).__name__,
        "tensors": len(cache_tensors(cache)),
        "pieces": len(pieces),
        "single tokens": sum(size == 1 for _, size in singles),
    }
    return findings, evidence


def _static(model: Any, cell: Cell, prompts: Tokens) -> Inspection:
    """Check generation with a static cache, if the class supports one."""
    names = ("_can_compile_fullgraph", "_supports_static_cache")
    if not hasattr(generating_module(model), "generate") or not any(
        getattr(core(model), name, False) for name in names
    ):
        return [], {}
    (findings, evidence), cache = static_findings(model, max(prompts, key=len), Limits.of(cell))
    return [*findings, *_misplaced(model, cell, cache, "static cache, ")], evidence


def _beams(model: Any, cell: Cell, prompts: Tokens) -> Inspection:
    """Check beam search, except for Mamba in transformers 4, whose states cannot be reordered."""
    if not hasattr(generating_module(model), "generate") or (is_state_space(model) and not _reorders(model, prompts)):
        return [], {}
    return beam_findings(model, random_text(prompts, SHORT, seed=3), Limits.of(cell))


def _generated(model: Any, cell: Cell, prompts: Tokens, target: Target) -> Inspection:
    """Check the caches that the target's own generation uses, and the logits from which it chooses."""
    limits, longest = Limits.of(cell), max(prompts, key=len)
    with caches_used(model) as caches:
        generated = watch_generation(target, model, longest)
    misplaced = [finding for cache in caches for finding in _misplaced(model, cell, cache, "generate's cache, ")]
    evidence: dict[str, int | float | str] = {"caches in generate": len(caches)}
    if misplaced:
        return misplaced, evidence
    steps, counts = compare_steps(model, longest, generated, limits)
    if not steps and (long := _long(model, prompts)):
        try:
            steps, more = step_findings(target, model, long, limits)
        except of_target() as error:
            # A target may refuse a text that is too long for its cache, but must not answer wrongly.
            if hint_of(error) is not None:
                raise
            more = {"a long prompt is refused": first_line(error)}
        except DoesNotApply as error:
            more = {"a long prompt": f"not tried: {message_of(error)}"}
        counts |= more
    return steps, evidence | counts


def _long(model: Any, prompts: Tokens) -> list[int]:
    """A long prompt for a target's `generate`, as long as the model allows; empty if that is not long."""
    length = min(longest_text_length(model, prompts), LONG_TEXT, position_limit(model) - NEW)
    return random_text(prompts, length, seed=4) if length > 2 * max(map(len, prompts)) else []


def _reorders(model: Any, prompts: Tokens) -> bool:
    _, cache = Stepper(model, max(prompts, key=len))(prompts[0], use_cache=True)
    return hasattr(cache, "reorder_cache")


def _pieces(prefill: int, *, turns: bool) -> list[tuple[str, int]]:
    """The pieces of the long text: (description, number of tokens)."""
    steps = [("new tokens after a prompt", 1)] * _STEPS
    if not turns:
        return [("a prompt", prefill), *steps]
    after = [("new tokens of a second turn", 1)] * _AFTER
    return [("a prompt", prefill), *steps, ("a second prompt on a carried cache", _TURN), *after]


def _singles(length: int, *, turns: bool) -> list[tuple[str, int]]:
    """The pieces of the short text, which starts with single tokens and has several tokens in the middle."""
    first = ("token by token from an empty cache", 1)
    between = length - 2 * _STEPS
    if not turns or between < 1:
        return [first] * length
    return [*[first] * _STEPS, ("several tokens on single ones", between), *[("single tokens after them", 1)] * _STEPS]


def _compare(
    stepper: Stepper,
    tokens: Sequence[int],
    pieces: Sequence[tuple[str, int]],
    whole: torch.Tensor,
    limits: Limits,
    first_piece: tuple[torch.Tensor, Any] | None = None,
) -> list[Finding]:
    """Feed `tokens` piece by piece, and compare the logits of each kind of piece with those of one pass.

    Args:
        stepper: runs the model.
        tokens: token ids.
        pieces: see `_pieces`.
        whole: the logits of all `tokens` in one pass.
        limits: the largest errors that are noise.
        first_piece: the logits and the cache of the first piece, if it has been fed already; the cache is changed.

    Returns:
        A finding for the first kind of piece whose logits differ.
    """
    import torch

    cache, past = None, 0
    logits: dict[str, tuple[int, list[torch.Tensor]]] = {}
    for name, size in pieces:
        if first_piece is not None and not past:
            out, cache = first_piece
        else:
            out, cache = stepper(tokens[past : past + size], cache, past=past, use_cache=True)
        logits.setdefault(name, (past, []))[1].append(out)
        past += size
    for name, (start, parts) in logits.items():
        out = torch.cat(parts)
        difference = gap(out, whole[start : start + len(out)], limits)
        if not difference.within(limits):
            where, of = f"logits of {name}", "those without a cache"
            return [gap_finding(where, difference, limits, CACHED, start=start, of=of)]
    return []


def _misplaced(model: Any, cell: Cell, cache: Any, prefix: str = "") -> list[Finding]:
    """Find tensors of `cache` with another dtype or device than their layer."""
    places = layer_devices(model)
    # A model that is in another dtype than it should be has its history in that one.
    computed = dtype_name(getattr(getattr(input_embedding(model), "weight", None), "dtype", "none"))
    elsewhere = {"cpu"} if is_offloaded(cache) else set()
    findings = []
    for entry in cache_tensors(cache):
        dtype = dtype_name(entry.tensor.dtype)
        if dtype not in {cell.dtype, "float32"}:
            wanted_dtype = " or ".join(dict.fromkeys((cell.dtype, "float32")))
            hint = None if dtype == computed else CACHE_DTYPE
            findings.append(Finding(f"{prefix}{entry.name}", wanted_dtype, dtype, hint))
        wanted = places.get(entry.layer) if entry.layer is not None else None
        place = with_index(entry.tensor.device)
        if wanted is not None and place not in wanted | elsewhere:
            findings.append(
                Finding(
                    f"{prefix}{entry.name}",
                    f"{' or '.join(sorted(wanted))}, where layer {entry.layer} computes",
                    place,
                    CACHE_DEVICE,
                )
            )
    return findings


def _of_cell(exam: Examination) -> Result:
    # A generation that fails is the generation check's.
    target = exam.target if exam.generated.error is None else None
    return check_cache(exam.model, exam.cell, exam.prompts, target)


CACHE_CHECK: Final = Check(
    "cache",
    _of_cell,
    (
        "the same logits without a cache, with one that is carried on over turns, and token by token; "
        "static caches and beams; the target's own steps after a short and a long prompt; each layer's "
        "cache beside the layer, in its dtype"
    ),
    "A cache changes what the model says, or is kept on another device or in another dtype.",
    needs=("generation",),
    failure="numeric",
    origin=True,
    behaviour=True,
    after="prefix",
)
