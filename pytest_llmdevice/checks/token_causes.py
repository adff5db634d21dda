"""Finds out, by a generation for one prompt that is watched, why a target's tokens are not what its model says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.batch_layout import padding_findings
from pytest_llmdevice.checks.call_tensors import ids_of, read_of
from pytest_llmdevice.checks.differences import is_choice, overall_error
from pytest_llmdevice.checks.position_ids import piece_findings
from pytest_llmdevice.diagnosis.hints import generation, sequences
from pytest_llmdevice.errors import target_forgiven
from pytest_llmdevice.inference.generation import begin_tokens, pad_token
from pytest_llmdevice.inference.logits import continuation_logits

if TYPE_CHECKING:
    from pytest_llmdevice.checks.steps import WatchedGeneration
    from pytest_llmdevice.diagnosis import Hint
    from pytest_llmdevice.monitoring.trace import Call, Trace

SHOWN: Final = 6
"""Token ids of a list that are shown at each of its ends."""


@dataclass(frozen=True, slots=True)
class Handed:
    """What a target handed to its model for one prompt.

    Attributes:
        prompt: the token ids that the target was given.
        ids: those that the model got before the first new token; empty where they could not be seen.
        hint: the usual cause where the two differ, or where mask or positions do not belong to the ids.
        what: what is wrong with them, in words; empty for nothing.
    """

    prompt: tuple[int, ...]
    ids: tuple[int, ...] = ()
    hint: Hint | None = None
    what: str = ""

    def __str__(self) -> str:
        if not self.ids:
            return "what was handed to the model could not be seen"
        if self.ids == self.prompt:
            same = "handed to the model: the ids of the prompt, as they are"
            return f"{same}; {self.what}" if self.what else same
        said = f"handed to the model: {short(self.ids)} for the prompt {short(self.prompt)}"
        return f"{said}: {self.what}" if self.what else said


def handed_to(trace: Trace, prompt: Sequence[int], model: Any) -> Handed:
    """What `trace`, of a generation for `prompt` alone, shows to have been handed to the model."""
    wanted = tuple(prompt)
    begin, ids = _ids(trace, wanted, model)
    if not ids:
        return Handed(wanted)
    at = _found(ids, wanted)
    if at:
        front = f"{at} token{'s' * (at > 1)} in front"
        return Handed(wanted, ids[: at + len(wanted)], generation.IN_FRONT, front)
    if at == 0:
        found = chain.from_iterable(_layout(call, trace, wanted, model) for call in trace.outer)
        layout = next(chain(found, piece_findings(trace.outer, model)), None)
        if layout is None:
            return Handed(wanted, wanted)
        what = f"{layout.where}: expected {layout.expected}, found {layout.actual}"
        return Handed(wanted, wanted, layout.hint, what)
    if len(begin) < len(wanted) and _found(wanted, begin) is not None:
        return Handed(wanted, begin, generation.CUT, f"{len(begin)} of its {len(wanted)} tokens")
    return Handed(wanted, ids, None, "other ids")


def _ids(trace: Trace, prompt: tuple[int, ...], model: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids of the first pass, and with those that go on behind it, without what the mask or padding hides."""
    begin: tuple[int, ...] = ()
    total: tuple[int, ...] = ()
    for call in trace.calls:
        ids = ids_of(call)
        if ids is None or ids.ndim != 2 or len(ids) != 1:
            continue
        row = tuple(ids[0].tolist())
        if not total:
            begin = total = _real(row, call, prompt, model)
            if call.function == "generate":
                break
        elif call.outer and (call.past == len(total) or prompt[len(total) : len(total) + len(row)] == row):
            total += row
    return begin, total


def _real(row: tuple[int, ...], call: Call, prompt: tuple[int, ...], model: Any) -> tuple[int, ...]:
    """`row` without what its mask hides, and without padding in front, which a mask may fail to hide."""
    read = read_of(call)
    if read is not None and read.shape == (1, len(row)):
        seen = [at for at, shown in enumerate(read[0].tolist()) if shown]
        row = row[seen[0] : seen[-1] + 1] if seen else row
    elif call.past:
        return row
    pads = _leading(row, pad_token(model)) - _leading(prompt, pad_token(model))
    # A single one may be the token that texts begin with.
    several = pads > 1 or (pads == 1 and pad_token(model) not in begin_tokens(model))
    return row[pads:] if several else row


def _leading(row: Sequence[int], token: int) -> int:
    """How often `token` stands at the beginning of `row`."""
    return next((at for at, each in enumerate(row) if each != token), len(row))


def _layout(call: Call, trace: Trace, prompt: tuple[int, ...], model: Any) -> list[Any]:
    following = [inner for inner in trace.calls if not inner.outer and inner.within == call.within]
    return padding_findings(call, following, [prompt], model)


def _found(ids: Sequence[int], part: Sequence[int]) -> int | None:
    """Where `part` is in `ids`, or None."""
    return next((at for at in range(len(ids) - len(part) + 1) if ids[at : at + len(part)] == part), None)


def short(ids: Sequence[int]) -> str:
    """`ids` in brackets, a long list with its two ends only."""
    if len(ids) <= 2 * SHOWN:
        return str(list(ids))
    ends = (", ".join(map(str, part)) for part in (ids[:SHOWN], ids[-SHOWN:]))
    return f"[{', ... '.join(ends)}]"


@dataclass(frozen=True, slots=True)
class TokenEvidence:
    """What a watched generation for one prompt by itself has shown.

    Attributes:
        handed: what the model got.
        alone: whether each of the tokens is one that the model chooses.
        step: the first step at which it is not; None where all are.
        logits: whether the model said at that step what a forward pass over the same tokens says; None where unknown.
    """

    handed: Handed
    alone: bool
    step: int | None = None
    logits: bool | None = None


def cause_of_tokens(seen: TokenEvidence) -> Hint | None:
    """The usual cause of tokens that differ in a batch or by themselves, where forward passes are right."""
    if seen.handed.hint is not None:
        return seen.handed.hint
    if seen.alone:
        return generation.BATCH
    if seen.logits:
        return generation.SETTINGS
    # Logits that are wrong from the first step on have no history that could be wrong.
    return sequences.STEPS if seen.logits is False and seen.step else None


def token_evidence(
    watch: Callable[[], WatchedGeneration], model: Any, prompt: Sequence[int], tolerance: float
) -> TokenEvidence | None:
    """`TokenEvidence` of a generation for `prompt` alone, or None for a target that raises or returns no tokens.

    Args:
        watch: makes that generation.
        model: the model.
        prompt: token ids.
        tolerance: the largest relative error of the model to itself.
    """
    seen: list[WatchedGeneration] = []
    with target_forgiven():
        seen.append(watch())
    if not seen or not seen[0].tokens:
        return None
    (watched,) = seen
    tokens = list(watched.tokens)
    handed = handed_to(watched.trace, prompt, model)
    clean = continuation_logits(model, prompt, tokens).float().cpu()
    step = next((at for at, token in enumerate(tokens) if not is_choice(clean[at], token, tolerance)), None)
    if step is None:
        return TokenEvidence(handed, alone=True)
    own = list(watched.logits)[-len(tokens) :]
    if len(own) != len(tokens) or own[step].shape != clean[step].shape:
        return TokenEvidence(handed, alone=False, step=step)
    error = overall_error([own[step][None]], [clean[step][None]])
    return TokenEvidence(handed, alone=False, step=step, logits=error <= tolerance)
