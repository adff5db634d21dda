"""The commonest call, a function of tensors that are all on one card, with as few steps as Python allows.

Whatever it does not recognize at once is left to `Functions.compute`, which does the same with all its cases. Most
of what a simulated model costs more than the same model on the CPU is spent here.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
import torch.utils._device

from pytest_llmdevice.simulation import kernels
from pytest_llmdevice.simulation.tags import NO_STORAGE, Placement, Tags

if TYPE_CHECKING:
    from pytest_llmdevice.simulation.functions import Functions

Handler = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]

Tensor = torch.Tensor


def device_question(tags: Tags) -> Handler:
    """The handler of `Tensor.device`."""
    storage_of, tag = torch.Tensor.untyped_storage, tags.name

    def answer(func: Any, args: tuple[Any, ...], _: dict[str, Any]) -> Any:
        try:
            found = storage_of(args[0]).__dict__.get(tag)
        except NO_STORAGE:
            return tags.of(args[0]) or func(*args)
        return func(*args) if found is None else found.device

    return answer


def interception(functions: Functions, handlers: dict[Any, Handler | None], multiply: Handler) -> Callable[..., Any]:
    """The `__torch_function__` of `functions`, already bound to it, as PyTorch asks for.

    Args:
        functions: what takes the calls that are not common.
        handlers: function -> what to do in its stead, None for a function that runs as it is.
        multiply: the handler among them that has nothing to say about floating-point numbers.
    """
    compute, run, put_all = functions.compute, functions.run, functions.tags.put_all
    machine, tag = functions.machine, functions.tags.name
    device_type = machine.device_type
    default: Any = torch.utils._device
    storage_of = torch.Tensor.untyped_storage
    says_no_more = frozenset(("device", "pin_memory", "out", "generator")).isdisjoint
    handler_of = handlers.get

    def intercept(  # noqa: PLR0912  # a function of its own for each case would cost more
        _: Functions, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        handler = handler_of(func, compute)
        if handler is None:
            return func(*args, **kwargs) if kwargs else func(*args)
        if kwargs is None:
            kwargs = {}
        if handler is not compute:
            floats = handler is multiply and args and isinstance(args[0], Tensor) and args[0].is_floating_point()
            if not floats:
                return handler(func, args, kwargs)
        if machine.careful or default.CURRENT_DEVICE is not None:
            return compute(func, args, kwargs)
        if kwargs:
            if not says_no_more(kwargs):
                return compute(func, args, kwargs)
            values: list[Any] = [*args, *kwargs.values()]
        else:
            values = list(args)
        place: Placement | None = None
        plain = rare = False
        try:
            for value in values:
                if isinstance(value, Tensor):
                    found = storage_of(value).__dict__.get(tag)
                    if found is None:
                        plain = True
                    elif place is None:
                        place = found
                    elif found.__class__ is not place.__class__:
                        rare = True
                elif isinstance(value, (tuple, list)):
                    # Tensors to be joined, or what is to be taken of one: looked at in their turn.
                    values.extend(value)
        except NO_STORAGE:
            rare = True
        if rare or (plain and place is not None):
            return compute(func, args, kwargs)
        if place is None:
            return func(*args, **kwargs) if kwargs else func(*args)
        try:
            result = func(*args, **kwargs) if kwargs else func(*args)
        except (RuntimeError, NotImplementedError) as error:
            result = kernels.instead(run, func, args, kwargs, error, device_type)
        if not isinstance(result, Tensor):
            return put_all(result, place.device)
        try:
            storage = storage_of(result)
        except NO_STORAGE:
            return put_all(result, place.device)
        marks = storage.__dict__
        if tag not in marks:
            marks[tag] = place.__class__(storage.nbytes())
        return result

    return MethodType(intercept, functions)
