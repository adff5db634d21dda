"""The check that a cache changes nothing: not what the model says, not the precision, not the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.beams import beam_findings, static_findings
from pytest_llmdevice.checks.examination import Check, Examination
from pytest_llmdevice.checks.noise import Inspection, Limits, finding, gap, own_faults, trusted_families
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.steps import NEW, compared, step_findings, watched
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.errors import hint_of
from pytest_llmdevice.diagnosis.hints.sequences import CACHE_DEVICE, CACHE_DTYPE, CACHED
from pytest_llmdevice.errors import of_target
from pytest_llmdevice.inference.stepping import LONG_TEXT, Stepper, longest_text_length, position_limit, random_text
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.model.device_map import with_index
from pytest_llmdevice.model.kv_cache import cache_tensors, caches_used, is_offloaded, is_state_space, layer_devices
from pytest_llmdevice.model.wrappers import core, generating_module
from pytest_llmdevice.text import dtype_name, first_line

if TYPE_CHECKING:
    import torch

    from pytest_llmdevice.loading.target import Target

Tokens = Sequence[Sequence[int]]

SHORT: Final = 20
"""Tokens that are fed from an empty cache, the first and the last ones one by one: beyond the zoo's sliding windows."""

_STEPS: Final = 4
_TURN: Final = 6
_AFTER: Final = 2


def check_cache(
    model: Any, cell: Cell, prompts: Tokens, target: Target | None = None, checkpoint: str | None = None
) -> Result:
    """Logits are the same without a cache, with one that is carried on, and token by token from an empty one.

    A long text is fed as a prompt, as new tokens one by one, as a second prompt on top of them (the next turn of a
    conversation), and as new tokens again. A short one is fed token by token, and into a static cache where the class
    supports one. Rows of a beam search's cache follow their beams. What the caches hold, those that the target's own
    `generate` uses included, is in the cell's dtype or float32, each layer's part where that layer computes.

    Args:
        model: the model under test.
        cell: what was asked for.
        prompts: token ids that the model is known to read.
        target: whose `generate` to look at; None to leave it out.
        checkpoint: the local folder that the model was loaded from, to see what a plain load has in common with it.
    """
    evidence: dict[str, int | float | str] = {}
    findings: list[Finding] = []
    parts: list[Callable[..., Inspection]] = [_carried, _static, _beams]
    if target is not None:
        parts.append(partial(_generated, target=target))
    for inspect in parts:
        # What goes wrong in the simplest way to use a cache goes wrong in all others.
        if inspect in (_static, _beams) and (findings or evidence.get("cache") == NONE):
            continue
        look = partial(inspect, cell=cell, prompts=prompts)
        try:
            found, counts = own_faults(
                look, model, cell, checkpoint, plain=BuiltinTarget().load, trusted=trusted_families() - _UNTRUSTED
            )
        except of_target() as error:
            # The target need not support a static cache, nor beams; mixing devices or dtypes in them is wrong anyway.
            if inspect not in (_static, _beams) or hint_of(error) is not None:
                raise
            found, counts = (), {f"without{inspect.__name__.replace('_', ' ')}": first_line(error)}
        findings += found
        evidence |= counts
    return Result("cache", tuple(dict.fromkeys(findings)), evidence)


_UNTRUSTED: Final = frozenset({"mamba"})
"""Families whose plain load has to be looked at too. Mamba's state in transformers 4 is on one card whatever the layers
are on, and is lost on meta where the embedding is offloaded."""

NONE: Final = "none"


def _carried(model: Any, cell: Cell, prompts: Tokens) -> Inspection:
    """Logits with a cache that is carried on, and what it holds."""
    limits = Limits.of(cell)
    feed = Stepper(model, max(prompts, key=len))
    length = min(longest_text_length(model, prompts), LONG_TEXT)
    long, short = random_text(prompts, length), random_text(prompts, min(SHORT, length), seed=2)
    whole, _ = feed(long)
    prefill = length - _STEPS - _TURN - _AFTER
    begun = feed(long[: max(prefill, 1)], use_cache=True)
    cache = begun[1]
    evidence: dict[str, int | float | str] = {"positions": len(whole), "longest text": length}
    if cache is None:
        # Generation reads the whole text again at each step.
        return [], {**evidence, "cache": NONE}
    findings = _misplaced(model, cell, cache)
    pieces = _pieces(prefill, turns=not is_state_space(model)) if prefill > 0 else []
    findings += _compare(feed, long, pieces, whole, limits, begun)
    alone, _ = feed(short)
    singles = _singles(len(short), turns=not is_state_space(model))
    findings += _compare(feed, short, singles, alone, limits)
    evidence |= {
        "cache": type(cache).__name__,
        "tensors": len(cache_tensors(cache)),
        "pieces": len(pieces),
        "single tokens": sum(size == 1 for _, size in singles),
    }
    return findings, evidence


def _static(model: Any, cell: Cell, prompts: Tokens) -> Inspection:
    """Generation into a static cache, where the class supports one."""
    names = ("_can_compile_fullgraph", "_supports_static_cache")
    if not hasattr(generating_module(model), "generate") or not any(
        getattr(core(model), name, False) for name in names
    ):
        return [], {}
    (findings, evidence), cache = static_findings(model, max(prompts, key=len), Limits.of(cell))
    return [*findings, *_misplaced(model, cell, cache, "static cache, ")], evidence


def _beams(model: Any, cell: Cell, prompts: Tokens) -> Inspection:
    """Beam search. The states of Mamba in transformers 4 cannot be reordered, and it is not made for beams."""
    if not hasattr(generating_module(model), "generate") or (is_state_space(model) and not _reorders(model, prompts)):
        return [], {}
    return beam_findings(model, random_text(prompts, SHORT, seed=3), Limits.of(cell))


def _generated(model: Any, cell: Cell, prompts: Tokens, target: Target) -> Inspection:
    """What the caches hold that the target's own generation uses, and what it chooses from."""
    limits, longest = Limits.of(cell), max(prompts, key=len)
    with caches_used(model) as caches:
        generated = watched(target, model, longest)
    found = [one for cache in caches for one in _misplaced(model, cell, cache, "generate's cache, ")]
    evidence: dict[str, int | float | str] = {"caches in generate": len(caches)}
    if found:
        return found, evidence
    steps, counts = compared(model, longest, generated, limits)
    if not steps and (long := _long(model, prompts)):
        try:
            steps, more = step_findings(target, model, long, limits)
        except of_target() as error:
            # To refuse a text that is too long for what the target allocates is its right; to answer wrongly is not.
            if hint_of(error) is not None:
                raise
            more = {"a long prompt is refused": first_line(error)}
        counts |= more
    return steps, evidence | counts


def _long(model: Any, prompts: Tokens) -> list[int]:
    """A prompt for a target's `generate` beyond 256 tokens, or as long as the model takes; empty where none is long."""
    length = min(longest_text_length(model, prompts), LONG_TEXT, position_limit(model) - NEW)
    return random_text(prompts, length, seed=4) if length > 2 * max(map(len, prompts)) else []


def _reorders(model: Any, prompts: Tokens) -> bool:
    _, cache = Stepper(model, max(prompts, key=len))(prompts[0], use_cache=True)
    return hasattr(cache, "reorder_cache")


def _pieces(prefill: int, *, turns: bool) -> list[tuple[str, int]]:
    """What to feed a long text as: (what it is, how many tokens) of each piece."""
    steps = [("new tokens after a prompt", 1)] * _STEPS
    if not turns:
        return [("a prompt", prefill), *steps]
    after = [("new tokens of a second turn", 1)] * _AFTER
    return [("a prompt", prefill), *steps, ("a second prompt on a carried cache", _TURN), *after]


def _singles(length: int, *, turns: bool) -> list[tuple[str, int]]:
    """The same for a short text that begins with single tokens: what only their number could change is in between."""
    first = ("token by token from an empty cache", 1)
    between = length - 2 * _STEPS
    if not turns or between < 1:
        return [first] * length
    return [*[first] * _STEPS, ("several tokens on single ones", between), *[("single tokens after them", 1)] * _STEPS]


def _compare(
    feed: Stepper,
    tokens: Sequence[int],
    pieces: Sequence[tuple[str, int]],
    whole: torch.Tensor,
    limits: Limits,
    begun: tuple[torch.Tensor, Any] | None = None,
) -> list[Finding]:
    """Feed `tokens` piece by piece; the first kind of piece whose logits are not those of `whole` is a finding.

    Args:
        feed: the model.
        tokens: token ids.
        pieces: see `_pieces`.
        whole: the logits of all `tokens` in one pass.
        limits: what is noise.
        begun: what feeding the first piece gave, if that has been done; its cache is used up.
    """
    import torch

    cache, past = None, 0
    said: dict[str, tuple[int, list[torch.Tensor]]] = {}
    for name, size in pieces:
        if begun is not None and not past:
            out, cache = begun
        else:
            out, cache = feed(tokens[past : past + size], cache, past=past, use_cache=True)
        said.setdefault(name, (past, []))[1].append(out)
        past += size
    for name, (start, parts) in said.items():
        out = torch.cat(parts)
        found = gap(out, whole[start : start + len(out)], limits)
        if not found.within(limits):
            return [finding(f"logits of {name}", found, limits, CACHED, start=start, of="those without a cache")]
    return []


def _misplaced(model: Any, cell: Cell, cache: Any, prefix: str = "") -> list[Finding]:
    """Tensors of `cache` in a dtype or on a device that is not their layer's."""
    places = layer_devices(model)
    elsewhere = {"cpu"} if is_offloaded(cache) else set()
    findings = []
    for one in cache_tensors(cache):
        dtype = dtype_name(one.tensor.dtype)
        if dtype not in {cell.dtype, "float32"}:
            wanted_dtype = " or ".join(dict.fromkeys((cell.dtype, "float32")))
            findings.append(Finding(f"{prefix}{one.name}", wanted_dtype, dtype, CACHE_DTYPE))
        wanted = places.get(one.layer) if one.layer is not None else None
        place = with_index(one.tensor.device)
        if wanted is not None and place not in wanted | elsewhere:
            findings.append(
                Finding(
                    f"{prefix}{one.name}",
                    f"{' or '.join(sorted(wanted))}, where layer {one.layer} computes",
                    place,
                    CACHE_DEVICE,
                )
            )
    return findings


def _of_cell(exam: Examination) -> Result:
    # A generation that fails is the generation check's.
    target = exam.target if exam.generated.error is None else None
    return check_cache(exam.model, exam.cell, exam.prompts, target, exam.checkpoint)


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
    after="prefix",
)
