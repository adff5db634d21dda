"""Lets tensor subclasses that wrap other tensors live on simulated cards, and has their own code see those.

A wrapper has no values of its own: its class computes, in Python that C++ calls. To C++ such a tensor must be on the
CPU like every other, because autograd ends the process at a tensor of a device that PyTorch was not built for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, Final

import torch
from torch import overrides

from pytest_llmdevice.errors import SimulationError
from pytest_llmdevice.simulation.functions import CPU, FunctionMode
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.tags import unintercepted

_Tensor: Any = torch.Tensor
_modes: Any = overrides
_subclasses_disabled = torch._C.DisableTorchFunctionSubclass
_enabled: Any = torch._C._EnableTorchFunction
_NONE: Final[Any] = torch._C._disabled_torch_dispatch_impl
_FAKES: Final = "torch._subclasses.fake_tensor"
_METHOD: Final = "__torch_dispatch__"


def install(mode: FunctionMode, patches: Patches) -> None:
    """Make tensor subclasses know the cards of `mode`."""
    watched: set[type] = set()

    def watch(kind: type) -> None:
        for owner in kind.__mro__:
            method = vars(owner).get(_METHOD)
            if method is None or owner in watched or owner in torch.Tensor.__mro__:
                continue
            watched.add(owner)
            if method is not _NONE:
                patches.set(owner, _METHOD, _Inside(mode, method))

    for kind in _subclasses_of(torch.Tensor):
        watch(kind)
    _install_constructors(mode, patches, watch)
    # Code of a subclass that turns all interception off wants to escape from itself, not from the simulation.
    patches.set(torch._C, "DisableTorchFunction", _subclasses_disabled)


def _subclasses_of(kind: type) -> Iterator[type]:
    subclasses: list[type] = type.__subclasses__(kind)
    for subclass in subclasses:
        yield subclass
        yield from _subclasses_of(subclass)


def _install_constructors(mode: FunctionMode, patches: Patches, watch: Callable[[type], None]) -> None:
    make_wrapper, make = _Tensor._make_wrapper_subclass, _Tensor._make_subclass
    machine, tags = mode.machine, mode.tags

    def make_wrapper_subclass(cls: Any, *args: Any, **kwargs: Any) -> Any:
        watch(cls)
        device = kwargs.get("device")
        target = None if device is None else machine.resolve(device)
        if target is None or target.type != machine.device_type:
            return make_wrapper(cls, *args, **kwargs)
        # C++ would ask the class for its device, and hear of the card.
        kwargs |= {"device": CPU, "dispatch_device": False}
        with unintercepted():
            return tags.wrap(make_wrapper(cls, *args, **kwargs), target)

    def make_subclass(cls: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
        backend = kwargs.get("device_for_backend_keys")
        if backend is not None and torch.device(backend).type == machine.device_type:
            if getattr(cls, "__module__", "") == _FAKES:
                # It has no values: its own code says where it is, and shapes are computed by kernels of no device.
                return make(cls, data, *args, **(kwargs | {"device_for_backend_keys": CPU}))
            raise SimulationError(f"{cls.__name__} asks PyTorch for kernels of the simulated {backend}, which has none")
        if kwargs.get("dispatch_device"):
            with unintercepted():
                kwargs["dispatch_device"] = tags.of(data) is None
        return make(cls, data, *args, **kwargs)

    def init_subclass(cls: Any, /, **kwargs: Any) -> None:
        super(torch.Tensor, cls).__init_subclass__(**kwargs)
        watch(cls)

    make_distributed = _Tensor._dtensor__new__

    def dtensor(cls: Any, local: Any, *args: Any, **kwargs: Any) -> Any:
        made = make_distributed(cls, local, *args, **kwargs)
        with unintercepted():
            # C++ has read the device of the shard, which is the CPU's there.
            card = tags.of(local)
            return made if card is None else tags.wrap(made, card)

    patches.set(_Tensor, "_dtensor__new__", staticmethod(dtensor))
    if (loaded := sys.modules.get("torch.distributed.tensor")) is not None:
        # The class has taken the function over.
        patches.set(loaded.DTensor, "__new__", staticmethod(dtensor))
    patches.set(_Tensor, "_make_wrapper_subclass", staticmethod(make_wrapper_subclass))
    patches.set(_Tensor, "_make_subclass", staticmethod(make_subclass))
    patches.set(_Tensor, "__init_subclass__", classmethod(init_subclass))


class _Inside:
    """The `__torch_dispatch__` of a class: where it is about a simulated card, its code sees the simulation.

    C++ calls it in the middle of a function that runs on plain CPU tensors.
    """

    def __init__(self, mode: FunctionMode, method: Any) -> None:
        self._mode = mode
        self._method = method

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        # It is a class method, or a static or a plain one.
        inner = self._method.__get__(instance, owner) if hasattr(self._method, "__get__") else self._method
        mode = self._mode

        def dispatch(func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = {} if kwargs is None else kwargs
            with unintercepted():
                about_cards = _names_card(mode, (*args, *kwargs.values()))
            if not about_cards:
                return inner(func, types, args, kwargs)
            if torch._C._is_torch_function_all_disabled():
                with _enabled(), _subclasses_disabled(), mode:
                    return inner(func, types, args, kwargs)
            with nullcontext() if _modes._get_current_function_mode() is mode else mode:
                return inner(func, types, args, kwargs)

        return dispatch


def _names_card(mode: FunctionMode, values: Any) -> bool:
    for value in values:
        if isinstance(value, torch.Tensor):
            if mode.tags.of(value) is not None:
                return True
        elif isinstance(value, torch.device):
            if value.type == mode.machine.device_type:
                return True
        elif isinstance(value, (tuple, list)) and _names_card(mode, value):
            return True
    return False
