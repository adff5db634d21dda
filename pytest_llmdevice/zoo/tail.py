"""Finds the last steps of any model: its last modules with matrices, and what is added to what they say.

These can be computed again and again without the rest of the model, which makes training them cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch
    from torch import nn

_PROBES: Final = 4
"""How many modules are tried for what is added to the residual stream, from the last one back."""

_CLOSE: Final = 1e-3
"""Relative difference below which two results are the same but for rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A call of one module, as the model made it; what follows is given `scale * then(module(given, ...)) + added`.

    Attributes:
        module: what is called.
        given: its first argument.
        args: its other arguments.
        kwargs: those by name.
        output: what it said.
        then: a function that is no module, None for none.
        scale: one number for each row and position, or one for all.
        added: what else is in the residual stream, or 0.
        shape: of what follows, if it is another than that of the output.
    """

    module: nn.Module
    given: torch.Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: torch.Tensor
    then: Callable[[torch.Tensor], torch.Tensor] | None = None
    scale: Any = 1.0
    added: Any = 0.0
    shape: tuple[int, ...] | None = None

    def __call__(self, given: torch.Tensor) -> torch.Tensor:
        """What follows is given when the module is given `given`, of the shape that it was."""
        said: torch.Tensor = self.module(given, *self.args, **self.kwargs)
        if self.then is not None:
            said = self.then(said)
        result: torch.Tensor = self.scale * (said if self.shape is None else said.reshape(self.shape)) + self.added
        return result

    def at(self, rows: torch.Tensor, positions: torch.Tensor, batch: tuple[int, int]) -> Step:
        """The same for these places of a batch of so many rows and positions: tensors of shape (1, places, ...)."""
        places = rows * batch[1] + positions

        def chosen(value: Any) -> Any:
            shape = tuple(getattr(value, "shape", ()))
            if shape[:2] == batch:
                return value[rows, positions][None]
            return value[places] if shape[:1] == (batch[0] * batch[1],) else value

        shape = self.shape
        if shape is not None:
            shape = (1, len(places), *shape[2:]) if shape[:2] == batch else (len(places), *shape[1:])
        return replace(
            self,
            given=chosen(self.given),
            args=tuple(map(chosen, self.args)),
            kwargs={name: chosen(value) for name, value in self.kwargs.items()},
            output=chosen(self.output),
            scale=chosen(self.scale),
            added=chosen(self.added),
            shape=self.shape
            and ((1, len(places), *self.shape[2:]) if self.shape[:2] == batch else (-1, self.shape[-1])),
        )


def tail_of(
    model: nn.Module, run: Callable[[], torch.Tensor], is_trained: Callable[[nn.Parameter], bool], count: int
) -> list[Step]:
    """The last steps of `model` before its head, from the first of them that is trained.

    Empty where what the head is given cannot be told apart into a module's output and what is added to it.

    Args:
        model: in evaluation mode.
        run: has `model` read a batch, and gives what its head was given.
        is_trained: whether a parameter may be trained.
        count: how many modules with matrices there should be, counted from the end.
    """
    calls, wanted = _calls(model, run)
    steps: list[Step] = []
    place = len(calls)
    while sum(has_matrices(step.module, is_trained) for step in steps) < count:
        found = _before(run, calls, place, wanted)
        if found is None:
            break
        place, step = found
        wanted = step.given
        steps.insert(0, step)
    while steps and not has_matrices(steps[0].module, is_trained):
        del steps[0]
    return steps


def weights_of(steps: Collection[Step], is_trained: Callable[[nn.Parameter], bool]) -> list[nn.Parameter]:
    """The weights of `steps` that are trained, each once."""
    found = [weight for step in steps for weight in step.module.parameters(recurse=False)]
    return list(dict.fromkeys(weight for weight in found if is_trained(weight)))


def has_matrices(module: nn.Module, is_trained: Callable[[nn.Parameter], bool]) -> bool:
    """Whether `module` itself has a matrix that is trained."""
    return any(weight.ndim > 1 and is_trained(weight) for weight in module.parameters(recurse=False))


def _calls(model: nn.Module, run: Callable[[], torch.Tensor]) -> tuple[list[Step], torch.Tensor]:
    """The calls of modules with weights of their own or without parts, in the order of their ends; and `run()`."""
    import torch

    calls: list[Step] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: object) -> None:
        if args and isinstance(args[0], torch.Tensor) and isinstance(output, torch.Tensor):
            # Copies, for models add in place.
            calls.append(Step(module, args[0].clone(), args[1:], dict(kwargs), output.clone()))

    hooks = [
        module.register_forward_hook(note, with_kwargs=True)
        for module in model.modules()
        if any(True for _ in module.parameters(recurse=False)) or not any(True for _ in module.children())
    ]
    try:
        return calls, run()
    finally:
        for hook in hooks:
            hook.remove()


def _before(
    run: Callable[[], torch.Tensor], calls: list[Step], place: int, wanted: torch.Tensor
) -> tuple[int, Step] | None:
    """The call before that at `place` whose output, scaled and with something added, is `wanted`; and its own place."""
    import torch

    shape = tuple(wanted.shape)
    fitting = [at for at in range(place) if _may_be(calls[at].output, wanted)]
    for at in fitting:
        if torch.equal(calls[at].output.reshape(shape), wanted):
            return at, replace(calls[at], shape=shape)
    for at in reversed(fitting):
        for function in _functions():
            if torch.equal(function(calls[at].output).reshape(shape), wanted):
                return at, replace(calls[at], then=function, shape=shape)
    tried = 0
    for at in reversed(fitting):
        output = calls[at].output
        if any(torch.equal(output, calls[other].output) for other in fitting if other < at):
            continue  # one that changes nothing, such as dropout
        if tried == _PROBES:
            break
        tried += 1
        scale = _scale(run, calls, at, place, wanted)
        if scale is not None:
            added = wanted - scale * output.reshape(shape)
            return at, replace(calls[at], scale=scale, added=added, shape=shape)
    return None


def _functions() -> tuple[Callable[[torch.Tensor], torch.Tensor], ...]:
    """The functions that heads of encoders put between their matrices, without a module."""
    from torch.nn import functional

    return functional.gelu, functional.relu, functional.silu, functional.tanh


def _may_be(output: torch.Tensor, wanted: torch.Tensor) -> bool:
    return output.numel() == wanted.numel() and output.shape[-1] == wanted.shape[-1] and output.dtype == wanted.dtype


def _scale(
    run: Callable[[], torch.Tensor], calls: list[Step], at: int, place: int, wanted: torch.Tensor
) -> torch.Tensor | None:
    """With what the output of the call `at` is multiplied before it is added to `wanted`, which the call `place` reads.

    One number for each row and position, found by a change of that output; None where it is not just added.
    """
    import torch

    output = calls[at].output
    noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)) * output.std()
    before = sum(call.module is calls[at].module for call in calls[:at])
    seen = 0

    def change(_module: nn.Module, _args: object, said: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        seen += 1
        return said + noise if seen == before + 1 else said

    hook = calls[at].module.register_forward_hook(change)
    try:
        changed = _given(run, calls, place)
    finally:
        hook.remove()
    if changed is None or changed.shape != wanted.shape:
        return None
    moved, by = changed - wanted, noise.reshape(wanted.shape)
    scale = (moved * by).sum(-1, keepdim=True) / by.square().sum(-1, keepdim=True)
    apart = (moved - scale * by).norm() / moved.norm().clamp(min=1e-9)
    return scale if bool(moved.norm() > 0) and bool(apart < _CLOSE) else None


def _given(run: Callable[[], torch.Tensor], calls: list[Step], place: int) -> torch.Tensor | None:
    """What the call at `place` is given when it is all run again; behind the last call, what the head is."""
    if place == len(calls):
        return run()
    module = calls[place].module
    before = sum(call.module is module for call in calls[:place])
    given: list[torch.Tensor] = []

    def look(_module: nn.Module, args: tuple[Any, ...]) -> None:
        given.append(args[0].clone())

    hook = module.register_forward_pre_hook(look)
    try:
        run()
    finally:
        hook.remove()
    return given[before] if len(given) > before else None
