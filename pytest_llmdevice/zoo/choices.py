"""Trains the end of any architecture on fixed continuations, so that no greedy choice is close to a tie.

The curated families are trained as a whole (`calibration`), which takes seconds. Here only the last matrices are, on
what the rest of the model gives them, which is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.zoo.calibration import ENOUGH, MARGIN
from pytest_llmdevice.zoo.lessons import Batch, Lesson, Tokens, batch, lessons
from pytest_llmdevice.zoo.spread import is_recurrent
from pytest_llmdevice.zoo.tail import Step, has_matrices, tail_of, weights_of

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

_MATRICES: Final = 2
"""Modules with matrices that are trained, counted from the end, the head among them where it is no embedding."""

_LOOKS: Final = 250
"""How often L-BFGS looks at all choices: for most architectures twenty to seventy times are enough."""

_LONG: Final = 100
"""Looks after which less than `ENOUGH` ends it."""

_CLEAR: Final = 0.6 * MARGIN
"""The difference between the best and the second logit with which a choice is clear."""

_NEARNESS: Final = 0.02
"""The weight of how far a matrix is from what it was, relative to its size: a large one amplifies what was rounded."""

_CLOSE: Final = 1e-2
"""Relative difference below which two results are the same but for rounding."""

_LARGE: Final = 4096
"""Tokens of a vocabulary from which on a head stays as it is, and is looked at by its likely tokens alone."""

_LIKELY: Final = 64
"""For each choice."""

_ROUNDS: Final = 3
"""In each, what became likely in the one before is looked at too."""

NO_HEAD: Final = "its head is no module that is called with a state for each place"
NO_END: Final = "what its head reads is no module's output with something added, so that nothing can be trained alone"
UNCLEAR: Final = "its last matrices cannot tell all places of the continuations apart"
TURNED: Final = "the rounding of half precision turns what it says, however its last matrices are trained"
LOOKS_AHEAD: Final = "what it says at a place depends on what follows there"


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """A model that reads a batch as far as its head.

    Attributes:
        model: in evaluation mode.
        head: its head.
        batch: what it reads.
    """

    model: PreTrainedModel
    head: nn.Module
    batch: Batch

    def states(self) -> torch.Tensor:
        """What the head is given, of shape (rows, positions, width).

        Raises:
            LookupError: the head is not called, or with something else.
        """
        return _read(self.model, self.head, self.batch.inputs)

    def rounded_states(self) -> torch.Tensor:
        """The same with each weight, and each module's output, rounded to bfloat16: by sums in float32, as anywhere."""
        import torch

        def cut(_module: nn.Module, _args: object, output: object) -> object:
            rounds = isinstance(output, torch.Tensor) and output.is_floating_point()
            return output.to(torch.bfloat16).to(output.dtype) if rounds else output  # type: ignore[attr-defined]

        hooks = [part.register_forward_hook(cut) for part in self.model.modules() if part is not self.head]
        exact = [(weight, weight.data) for weight in self.model.parameters()]
        try:
            for weight, value in exact:
                weight.data = value.to(torch.bfloat16).to(value.dtype)
            return self.states()
        finally:
            for weight, value in exact:
                weight.data = value
            for hook in hooks:
                hook.remove()

    def said(self, states: torch.Tensor) -> torch.Tensor:
        """What the head says at the choices, of shape (choices, vocabulary)."""
        import torch

        with torch.no_grad():
            logits: torch.Tensor = self.head(states[self.batch.rows, self.batch.positions][None])[0]
        return logits


def clear_choices(model: PreTrainedModel, prompts: Sequence[Tokens], answers: Sequence[Tokens], pad: int) -> str | None:
    """Train the last matrices of `model` in place until the choices of `answers` after `prompts` are clear.

    Returns:
        Why that cannot be done, a clause; the model then is as it was. None where it is done.
    """
    config: Any = model.config
    start = config.decoder_start_token_id if config.is_encoder_decoder else None
    learned = lessons(prompts, answers, pad)
    untyped: Any = model
    head = untyped.get_output_embeddings()
    if head is None or getattr(head, "weight", None) is None:
        return NO_HEAD
    model.requires_grad_(False)
    reading = _Reading(model, head, batch(learned, pad, start))
    try:
        states = reading.states()
        _refuse_ahead(reading, states, learned[0], pad, start)
        return _cleared(reading, states)
    except LookupError as error:
        return str(error.args[0])


def _cleared(reading: _Reading, states: torch.Tensor) -> str | None:
    import torch

    names = {weight: name for name, weight in reading.model.named_parameters()}
    untyped: Any = reading.model
    table, read = untyped.get_input_embeddings().weight, reading.batch

    def is_trained(weight: nn.Parameter) -> bool:
        return weight is not table and len(weight) <= _LARGE and not is_recurrent(names[weight])

    # Rounding is relative to the size of logits, which some models keep small, and others scale behind their head.
    unit = max(1.0, 1 / float(reading.said(states).std()))
    own = has_matrices(reading.head, is_trained)
    steps = tail_of(reading.model, reading.states, is_trained, _MATRICES - own)
    if not steps and not own:
        return NO_END
    for end in _ends(steps, is_trained, alone=own):
        weights = [*weights_of(end, is_trained), *filter(is_trained, reading.head.parameters(recurse=False))]
        before = [weight.detach().clone() for weight in weights]
        chosen = [step.at(read.rows, read.positions, read.shape) for step in end]
        given = chosen[0].given if chosen else states[read.rows, read.positions][None]
        likely = _likely(reading.said(states), read.labels)
        turned: bool | None = None
        for _ in range(_ROUNDS):
            labels = read.labels if likely is None else torch.searchsorted(likely, read.labels)
            said = partial(_said, chosen, given, reading.head, likely, unit)
            train(said, replace(read, labels=labels).margins, weights)
            logits = unit * reading.said(reading.states())
            if bool(read.margins(logits).min() >= _CLEAR):
                turned = bool(read.margins(reading.said(reading.rounded_states())).min() <= 0)
                break
            if likely is None:
                break
            likely = _likely(logits, likely)
        if turned is False:
            return None
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)
        if turned:
            return TURNED
    return UNCLEAR


def _ends(steps: list[Step], is_trained: Callable[[nn.Parameter], bool], *, alone: bool) -> Iterator[list[Step]]:
    """`steps` and, in case that what is before them was understood wrongly, fewer of them; `alone` none at last."""
    while steps:
        yield steps
        rest = (at for at, step in enumerate(steps) if at and has_matrices(step.module, is_trained))
        steps = steps[next(rest, len(steps)) :]
    if alone:
        yield []


def _likely(logits: torch.Tensor, known: torch.Tensor) -> torch.Tensor | None:
    """The tokens of a large vocabulary that are looked at, in order: those that some choice prefers, and `known`.

    None where it is small, and all are.
    """
    import torch

    if logits.shape[1] <= _LARGE:
        return None
    found: torch.Tensor = torch.unique(torch.cat([known.flatten(), logits.topk(_LIKELY).indices.flatten()]))
    return found


def _said(
    steps: Sequence[Step], given: torch.Tensor, head: nn.Module, tokens: torch.Tensor | None, unit: float
) -> torch.Tensor:
    """The logits of the choices, times `unit`, of shape (choices, tokens); None are all tokens."""
    from torch.nn import functional

    for step in steps:
        given = step(given)
    untyped: Any = head
    if tokens is None:
        logits: torch.Tensor = head(given)[0]
    else:
        bias = getattr(head, "bias", None)
        logits = functional.linear(given, untyped.weight[tokens], None if bias is None else bias[tokens])[0]
    return unit * logits


def train(
    logits: Callable[[], torch.Tensor], read: Callable[[torch.Tensor], torch.Tensor], weights: Sequence[nn.Parameter]
) -> None:
    """Train `weights` in place, until all choices are clear or for as long as is worth it.

    Args:
        logits: what the end of a model says with them as they are, of shape (choices, tokens).
        read: how far the wanted choice is above each other one, of logits.
        weights: what is trained.
    """
    import torch

    first = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.LBFGS(
        weights,
        max_iter=_LOOKS,
        max_eval=_LOOKS,
        tolerance_grad=0,
        tolerance_change=0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )
    looks = 0

    def loss() -> torch.Tensor:
        nonlocal looks
        looks += 1
        margins = read(logits())
        if bool(margins.min() >= (ENOUGH if looks < _LONG else 1.1 * _CLEAR)):
            raise _Clear
        optimizer.zero_grad()
        found: torch.Tensor = (MARGIN - margins).relu().square().sum().div(len(margins))
        for weight, before in zip(weights, first, strict=True):
            found = found + _NEARNESS * (weight - before).square().sum() / before.square().sum().clamp(min=1.0)
        found.backward()  # type: ignore[no-untyped-call]
        return found

    for weight in weights:
        weight.requires_grad_(True)
    try:
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    except _Clear:
        pass
    finally:
        for weight in weights:
            weight.requires_grad_(False)
            weight.grad = None


class _Clear(Exception):
    """All choices are clear: it is the weights that were tried last that make them so."""


def _read(model: PreTrainedModel, head: nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What the head is given when `model` reads `inputs`, of shape (rows, positions, width).

    Raises:
        LookupError: the head is not called, or with something else.
    """
    import torch

    given: list[torch.Tensor] = []

    def look(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        given.append(args[0].clone())
        # Of one position alone: most of the work is in logits.
        return (args[0][:, :1], *args[1:]) if args[0].ndim == 3 else None

    hook = head.register_forward_pre_hook(look)
    try:
        with torch.no_grad():
            model(**inputs, use_cache=False)
    finally:
        hook.remove()
    shape = inputs.get("decoder_input_ids", inputs["input_ids"]).shape
    if len(given) != 1 or given[0].shape[:2] != shape or not given[0].is_floating_point():
        raise LookupError(NO_HEAD)
    return given[0]


def _refuse_ahead(reading: _Reading, states: torch.Tensor, lesson: Lesson, pad: int, start: int | None) -> None:
    """Do nothing if what is read in a batch is what is read token by token, by the first row, ended early.

    Raises:
        LookupError: it is not.
    """
    alone = batch([Lesson(lesson.read, lesson.answer[:1])], pad, start)
    state = _read(reading.model, reading.head, alone.inputs)
    known = states[0, reading.batch.positions[0]]
    if bool((state[0, -1] - known).norm() > _CLOSE * known.norm()):
        raise LookupError(LOOKS_AHEAD)
