"""Every torch function that Python calls, seen before it runs: where its operands are, and where its result goes.

A function whose tensors are all on one card runs as it is, on the CPU and unobserved, and what it made is put on
that card: nothing inside it could have gone wrong. Only a call whose tensors are in different places is watched
operation by operation (see `dispatch`), because there PyTorch's rules decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.utils._device
from torch.overrides import TorchFunctionMode

from pytest_llmdevice.simulation import autocast, generators, kernels, names
from pytest_llmdevice.simulation.dispatch import Watch
from pytest_llmdevice.simulation.fast_paths import device_question, interception
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.tags import NO_STORAGE, Tags

Handler = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]

CPU = torch.device("cpu")
Tensor = torch.Tensor
_storage = torch.Tensor.untyped_storage
_real_device: Callable[[torch.Tensor], torch.device] = vars(torch._C.TensorBase)["device"].__get__
_default: Any = torch.utils._device
_MIXED = object()


class Functions(TorchFunctionMode):
    """The interception. While a function runs, everything in it sees the truth: CPU tensors.

    Args:
        machine: what is simulated.
        tags: where tensors are.
        special: functions that are about devices themselves, and what to do in their stead.

    Attributes:
        known: the cards, by what they are written as most.
    """

    def __init__(self, machine: Machine, tags: Tags, special: Mapping[Any, Callable[..., Any]]) -> None:
        super().__init__()
        self.machine = machine
        self.tags = tags
        self.watch = Watch(machine, tags)
        self._device_type = machine.device_type
        self._refused = machine.profile.refused
        self._tag = tags.name
        self._random = names.random()
        self.known: dict[Any, torch.device] = {}
        for index, device in enumerate(machine.devices):
            self.known |= dict.fromkeys((device, str(device), index), device)
        multiply = self.multiply
        handlers: dict[Any, Handler | None] = dict.fromkeys(names.transparent())
        handlers.update(dict.fromkeys(names.random(), self.draw))
        handlers.update(dict.fromkeys(names.constructors(), self.construct))
        handlers.update(dict.fromkeys(names.named(kernels.INTEGER_PRODUCTS), multiply))
        handlers.update((function, handler.__get__(self)) for function, handler in special.items())
        handlers[vars(torch._C.TensorBase)["device"].__get__] = device_question(tags)
        # Made for this object and no method of the class: a few steps less for every call there is.
        self.__torch_function__: Callable[..., Any] = interception(self, handlers, multiply)

    def compute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function where its tensors are.

        Raises:
            RuntimeError: what PyTorch raises for tensors in different places.
        """
        if kwargs and (kwargs.get("device") is not None or kwargs.get("pin_memory")):
            return self.create(func, args, kwargs, CPU if kwargs.get("device") is None else kwargs["device"])
        where = self.where(args, kwargs) if kwargs else self.where(args)
        if where is None or where is CPU or where is _MIXED or self.machine.saved_tensor_hooks:
            return self._elsewhere(where, func, args, kwargs)
        generators.check(kwargs.get("generator"), where)
        try:
            if torch.is_autocast_enabled(self._device_type) or torch.is_autocast_enabled("cpu"):
                result = autocast.run(func, args, kwargs, self._device_type)
            else:
                result = self.run(func, args, kwargs)
        except (RuntimeError, NotImplementedError) as error:
            result = kernels.instead(self.run, func, args, kwargs, error, self._device_type)
        self.tags.put_all(result, where)
        self.refuse(result)
        for tensor in _flat((kwargs.get("out"),)):
            if isinstance(tensor, Tensor):
                self.tags.resized(tensor)
        return result

    def multiply(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a product of matrices: cards have none of integers.

        Raises:
            NotImplementedError: PyTorch's, for integers on a CUDA or ROCm card.
        """
        operands = args[1:] if func.__name__ == "einsum" else (*args, *kwargs.values())
        tensors = [value for value in operands if isinstance(value, Tensor)]
        integers = tensors and not tensors[0].is_floating_point() and self._device_type == "cuda"
        # Where the factors are on different devices, that is what PyTorch says first.
        if integers and self.card(args, kwargs) is not None:
            kernels.refuse_integers(func.__name__, tensors[:2] if func.__name__ == "linear" else tensors)
        return self.compute(func, args, kwargs)

    def _elsewhere(self, where: object, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function that has no tensors, only those of the CPU, or tensors in different places."""
        if where is _MIXED or (self.machine.saved_tensor_hooks and where is not CPU and where is not None):
            return self.watched(func, args, kwargs)
        if kwargs:
            generators.check(kwargs.get("generator"), CPU)
        return func(*args, **kwargs)

    def watched(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function and look at each operation in it.

        Raises:
            RuntimeError: what PyTorch raises for operands in different places.
        """
        first = next((value for value in _flat((*args, *kwargs.values())) if isinstance(value, Tensor)), None)
        with self.watch.on(None if first is None else self.tags.of(first)):
            result = self.run(func, args, kwargs)
        self._refuse_output_elsewhere(args, kwargs)
        return result

    def _refuse_output_elsewhere(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Operations that are composed write `out=` with `copy_`, after a check that only C++ makes.
        out = kwargs.get("out")
        if isinstance(out, torch.Tensor):
            inputs, device = self.where(args), self.place_of(out)
            if isinstance(inputs, torch.device) and inputs != device:
                raise RuntimeError(f"Expected out tensor to have device {inputs}, but got {device} instead")

    def where(self, values: Any, more: Mapping[str, Any] | None = None) -> Any:
        """The device that all tensors in `values` and `more` share, `_MIXED` when there are two, None without any."""
        found: Any = None
        tag = self._tag
        for value in values:
            if isinstance(value, Tensor):
                try:
                    placement = getattr(_storage(value), tag, None)
                except NO_STORAGE:
                    placement = self.tags.placement(value)
                device = CPU if placement is None else placement.device
            elif isinstance(value, _CONTAINERS):
                device = self.where(value)
                if device is None:
                    continue
            else:
                continue
            if found is not device and found is not None:
                return _MIXED
            found = device
        if more:
            device = self.where(more.values())
            if found is None:
                return device
            if device is not None and device is not found:
                return _MIXED
        return found

    def card(self, values: Any, more: Mapping[str, Any] | None = None) -> torch.device | None:
        """The card that all tensors are on; None where they are on the CPU or in different places."""
        where = self.where(values, more)
        return None if where is CPU or where is _MIXED else where

    def place_of(self, tensor: torch.Tensor) -> torch.device:
        """Where a tensor is, simulated or real."""
        return self.tags.of(tensor) or _real_device(tensor)

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function with the truth about devices, whatever default device is set."""
        if _default.CURRENT_DEVICE is None or self.default_device() is None:
            return func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            return func(*args, **kwargs)

    def create(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], device: Any) -> Any:
        """Run a function that was told where its result shall be.

        Raises:
            RuntimeError: there is no such card.
            TypeError: a dtype that the card does not have.
        """
        target = self.known.get(device) or self.machine.resolve(device)
        if kwargs.get("pin_memory"):
            if target.type != "cpu":
                raise RuntimeError("Only dense CPU tensors can be pinned")
            # C++ has no driver to ask for pinned memory; the note is all that anybody can see of it.
            return self.tags.pin(self.run(func, args, dict(kwargs, device=target, pin_memory=False)))
        kwargs["device"] = CPU
        if target.type != self.machine.device_type:
            kwargs["device"] = target
            return self.run(func, args, kwargs)
        if kwargs.get("generator") is not None:
            generators.check(kwargs["generator"], target)
            result = self.run(func, args, kwargs)
        elif func in self._random:
            with generators.drawing(self.machine, target):
                result = self.run(func, args, kwargs)
        else:
            result = self.run(func, args, kwargs)
        if not isinstance(result, Tensor):
            return result
        if self._refused:
            self.refuse(result)
        return self.tags.place(result, target)

    def construct(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a factory: its result is where it was told, else on the default device.

        A tensor among its arguments is read as a number and says nothing about the place: `torch.arange(lengths.max())`
        is on the CPU, whatever card `lengths` is on.
        """
        device = kwargs.get("device")
        if device is None:
            device = CPU if kwargs.get("pin_memory") else self.default_device()
        if device is not None:
            return self.create(func, args, kwargs, device)
        generators.check(kwargs.get("generator"), CPU)
        result = self.run(func, args, kwargs)
        if kwargs.get("out") is not None:
            self.tags.resized(kwargs["out"])
        return result

    def draw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function that draws random numbers: from the generator of the card that its tensors are on."""
        if kwargs.get("generator") is not None or kwargs.get("device") is not None:
            return self.compute(func, args, kwargs)
        card = self.card(args, kwargs)
        if card is None:
            return self.compute(func, args, kwargs)
        with generators.drawing(self.machine, card):
            return self.compute(func, args, kwargs)

    def refuse(self, result: Any) -> None:
        """Raise if the card cannot hold what was asked for.

        Raises:
            TypeError: PyTorch's, for a dtype that the card does not have.
        """
        if self._refused and isinstance(result, Tensor):
            dtype = str(result.dtype).removeprefix("torch.")
            if dtype in self._refused:
                kind = self.machine.device_type.upper()
                raise TypeError(
                    f"Cannot convert a {kind} Tensor to {dtype} dtype as the {kind} framework doesn't support {dtype}. "
                    "Please use float32 instead."
                )

    def default_device(self) -> torch.device | None:
        """The card on which `torch.set_default_device` or `with torch.device(...)` puts new tensors; else None."""
        default: torch.device | None = _default.CURRENT_DEVICE
        if default is None or default.type != self.machine.device_type:
            return None
        return default


_CONTAINERS = (tuple, list)


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, _CONTAINERS):
            yield from _flat(value)
        else:
            yield value
