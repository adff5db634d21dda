"""Speeds up the commonest torch calls of a simulated model: functions of tensors that are all on one card.

Three paths are shortened, and all three give the results of the general code: `bound_torch_function` decides common
calls in one function and leaves the others to `FunctionMode.compute`; `device_handler` answers `Tensor.device`; and
`install` skips a search that PyTorch's Python functions make before they ask a mode. Most of the time that a
simulated model takes beyond the same model on the CPU is spent here.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, Final

import torch
import torch.utils._device
from torch import overrides

from pytest_llmdevice.simulation import kernels
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.refusals import is_multiplied
from pytest_llmdevice.simulation.tags import NO_STORAGE, PLAIN, Placement, Tags, unintercepted

Handler = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
"""`(function, args, kwargs) -> result`: what is called instead of a torch function."""

Tensor = torch.Tensor
_mode_stack: Any = overrides
_DEFAULT: Any = torch.Tensor.__torch_function__.__func__  # type: ignore[attr-defined]
_DISABLED: Final = torch._C._disabled_torch_function_impl
_PLAIN_OR_NONE: Final = PLAIN | {type(None)}

WHERE: Final = frozenset(
    vars(torch._C.TensorBase)[name].__get__ for name in ("device", "is_cuda", "is_cpu", "is_mps", "is_xpu")
) | {torch.Tensor.get_device}
"""The functions that say where a tensor is."""


def device_handler(tags: Tags) -> Handler:
    """The handler of `Tensor.device`."""
    storage_of, tag = torch.Tensor.untyped_storage, tags.name

    def answer(func: Any, args: tuple[Any, ...], _: dict[str, Any]) -> Any:
        try:
            placement = storage_of(args[0]).__dict__.get(tag)
        except NO_STORAGE:
            return tags.of(args[0]) or func(*args)
        return func(*args) if placement is None else placement.device

    return answer


def bound_torch_function(  # noqa: PLR0915  # see `torch_function`
    mode: overrides.TorchFunctionMode,
    machine: Machine,
    tags: Tags,
    handlers: dict[Any, Handler | None],
    *,
    compute: Handler,
    multiply: Handler,
    run: Handler,
) -> Callable[..., Any]:
    """The `__torch_function__` of `mode`, as the bound method that PyTorch asks for.

    Args:
        mode: the mode that it is bound to.
        machine: what is simulated.
        tags: on which device each tensor is.
        handlers: torch function -> its handler, None for a function that runs unchanged.
        compute: the handler of all other functions, which knows every case.
        multiply: the handler that treats floating-point tensors as `compute` does.
        run: calls a function on the real CPU tensors.
    """
    put_all, tag = tags.put_all, tags.name
    device_type = machine.device_type
    default: Any = torch.utils._device
    storage_of = torch.Tensor.untyped_storage
    has_plain_kwargs = frozenset(("device", "pin_memory", "out", "generator")).isdisjoint
    handler_of = handlers.get
    only_plain = PLAIN.issuperset
    leave_to_subclass = _leaver(tags, handlers)

    def torch_function(  # noqa: PLR0912  # a function of its own for each case would cost more
        _: Any, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if types and not only_plain(types) and _has_own_function(types):
            return leave_to_subclass(func, args)
        handler = handler_of(func, compute)
        if handler is None:
            return func(*args, **kwargs) if kwargs else func(*args)
        if kwargs is None:
            kwargs = {}
        if handler is not compute:
            floats = handler is multiply and args and isinstance(args[0], Tensor) and is_multiplied(args[0].dtype)
            if not floats:
                return handler(func, args, kwargs)
        if machine.needs_full_path or default.CURRENT_DEVICE is not None:
            return compute(func, args, kwargs)
        if kwargs:
            if not has_plain_kwargs(kwargs):
                return compute(func, args, kwargs)
            values: list[Any] = [*args, *kwargs.values()]
        else:
            values = list(args)
        place: Placement | None = None
        on_cpu = rare = False
        try:
            for value in values:
                if isinstance(value, Tensor):
                    placement = storage_of(value).__dict__.get(tag)
                    if placement is None:
                        on_cpu = True
                    elif place is None:
                        place = placement
                    elif placement.__class__ is not place.__class__:
                        rare = True
                elif isinstance(value, (tuple, list)):
                    # A list of tensors to join, or an index: the loop reaches its items later.
                    values.extend(value)
        except NO_STORAGE:
            rare = True
        if rare or (on_cpu and place is not None):
            return compute(func, args, kwargs)
        if place is None:
            return func(*args, **kwargs) if kwargs else func(*args)
        try:
            result = func(*args, **kwargs) if kwargs else func(*args)
        except (RuntimeError, NotImplementedError) as error:
            result = kernels.rerun_wider(run, func, args, kwargs, error, device_type)
        if result.__class__ not in PLAIN:
            return put_all(result, place.device)
        try:
            storage = storage_of(result)
        except NO_STORAGE:
            return put_all(result, place.device)
        attributes = storage.__dict__
        if tag not in attributes:
            attributes[tag] = place.__class__(storage.nbytes())
        return result

    return MethodType(torch_function, mode)


def _leaver(tags: Tags, handlers: dict[Any, Handler | None]) -> Callable[..., Any]:
    """What to do with a call of which a class with a `__torch_function__` of its own is part."""

    def leave(func: Any, args: tuple[Any, ...]) -> Any:
        handler = handlers.get(func) if func in WHERE else None
        if handler is not None:
            # Its code may turn interception off, and would hear from C++ that the tensor is on the CPU.
            with unintercepted():
                if tags.of(args[0]) is not None:
                    return handler(func, args, {})
        # PyTorch asks the class next, with the mode on.
        return NotImplemented

    return leave


def _has_own_function(types: Any) -> bool:
    """Whether one of the classes has a `__torch_function__` of its own, which takes part in the call."""
    if not torch._C._is_torch_function_enabled():
        return False  # it has asked itself
    functions = (kind.__torch_function__ for kind in types)
    return any(each is not _DISABLED and getattr(each, "__func__", None) is not _DEFAULT for each in functions)


def install(mode: overrides.TorchFunctionMode, patches: Patches) -> None:
    """Skip the search for tensor subclasses in `torch.nn.functional` and `torch.functional` while `mode` is on top.

    PyTorch collects the classes of all arguments before it asks the mode, and takes the mode off with a generator:
    too slow for an embedding. The simulation has no use for the classes, and its mode is by far the commonest.
    """
    for module in (torch.nn.functional, torch.functional):
        patches.set(module, "handle_torch_function", _without_search(module.handle_torch_function, mode))


def _without_search(handle: Any, simulation: Any) -> Any:
    def handle_torch_function(function: Any, relevant: Any, *args: Any, **kwargs: Any) -> Any:
        mode = _mode_stack._get_current_function_mode()
        if mode is not simulation or any(value.__class__ not in _PLAIN_OR_NONE for value in relevant):
            return handle(function, relevant, *args, **kwargs)
        _mode_stack._pop_mode()
        try:
            return mode.__torch_function__(function, (), args, kwargs)
        finally:
            _mode_stack._push_mode(mode)

    return handle_torch_function
