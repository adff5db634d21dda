"""Intercepts every torch function that Python calls, checks where its tensors are, and places its result.

A function whose tensors are all on one card runs unchanged on the CPU, and its result is placed on that card: no
device error is possible inside it. Only a call whose tensors are on different devices is watched operation by
operation (see `dispatch`), because there PyTorch's rules decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.utils._device
from torch.overrides import TorchFunctionMode

from pytest_llmdevice.matrix.vocabulary import dtype_name
from pytest_llmdevice.simulation import autocast, function_names, generators, kernels, out_checks, products, refusals
from pytest_llmdevice.simulation.dispatch import Watch
from pytest_llmdevice.simulation.fast_paths import Handler, bound_torch_function, device_handler
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.tags import NO_STORAGE, Tags, is_wrapper, unintercepted

CPU = torch.device("cpu")
Tensor = torch.Tensor
_storage = torch.Tensor.untyped_storage
_real_device: Callable[[torch.Tensor], torch.device] = vars(torch._C.TensorBase)["device"].__get__
_default: Any = torch.utils._device
_MIXED = object()
_fake_mode: Callable[[Any], Any] = torch._C._get_dispatch_mode
_FAKE: Any = torch._C._TorchDispatchModeKey.FAKE
_OPERATORS = (torch._ops.OpOverload, torch._ops.OpOverloadPacket)


class FunctionMode(TorchFunctionMode):
    """The mode that PyTorch asks about every torch function. While a function runs, it sees plain CPU tensors.

    Args:
        machine: what is simulated.
        tags: on which device each tensor is.
        special: torch function -> handler `(mode, function, args, kwargs) -> result` to call instead.

    Attributes:
        machine: what is simulated.
        tags: on which device each tensor is.
        watch: the dispatch mode that checks single operations.
        cards: spelling -> card, for the commonest spellings, as the machine has them.
    """

    def __init__(self, machine: Machine, tags: Tags, special: Mapping[Any, Callable[..., Any]]) -> None:
        super().__init__()
        self.machine = machine
        self.tags = tags
        self.watch = Watch(machine, tags, lambda: self)
        self._device_type = machine.device_type
        self._refused = machine.needs_full_path
        self._tag = tags.name
        self._random = function_names.random_functions()
        self._on_cards = autocast.on_cards(tags)
        self.cards = machine.spellings
        multiply = self.multiply
        handlers: dict[Any, Handler | None] = dict.fromkeys(function_names.transparent_functions())
        handlers.update(dict.fromkeys(function_names.random_functions(), self.draw))
        handlers.update(dict.fromkeys(function_names.factory_functions(), self.construct))
        handlers.update(dict.fromkeys(function_names.functions_named(refusals.INTEGER_PRODUCTS), multiply))
        handlers.update((function, handler.__get__(self)) for function, handler in special.items())
        handlers[vars(torch._C.TensorBase)["device"].__get__] = device_handler(tags)
        # An attribute of the object instead of a method of the class: saves a few steps on every call.
        self.__torch_function__: Callable[..., Any] = bound_torch_function(
            self, machine, tags, handlers, compute=self.compute, multiply=multiply, run=self.run
        )

    def compute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function on the device of its tensors.

        Raises:
            RuntimeError: what PyTorch raises for tensors on different devices.
        """
        if kwargs and (kwargs.get("device") is not None or kwargs.get("pin_memory")):
            return self.create(func, args, kwargs, CPU if kwargs.get("device") is None else kwargs["device"])
        device = self.common_device(args, kwargs) if kwargs else self.common_device(args)
        if device is None or device is CPU or device is _MIXED or self.machine.saved_tensor_hooks:
            return self._compute_elsewhere(device, func, args, kwargs)
        generators.check_generator(kwargs.get("generator"), device)
        try:
            if torch.is_autocast_enabled(self._device_type) or torch.is_autocast_enabled("cpu"):
                result = autocast.run(func, args, kwargs, self._device_type)
            else:
                result = self.run(func, args, kwargs)
        except (RuntimeError, NotImplementedError) as error:
            result = kernels.rerun_wider(self.run, func, args, kwargs, error, self._device_type)
        self.tags.put_all(result, device)
        self.check_dtype(result, device)
        for tensor in _flat((kwargs.get("out"),)):
            if isinstance(tensor, Tensor):
                self.tags.resized(tensor)
        return result

    def multiply(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a product of matrices, which CUDA and ROCm have kernels for where the factors are usual numbers.

        Raises:
            NotImplementedError: PyTorch's, for integers and numbers of 8 bits on a CUDA or ROCm card.
        """
        operands = args[1:] if func.__name__ == "einsum" else (*args, *kwargs.values())
        tensors = [value for value in operands if isinstance(value, Tensor)]
        refused = tensors and not refusals.is_multiplied(tensors[0].dtype) and self._device_type == "cuda"
        if refused and tensors[0].is_floating_point() and torch.is_autocast_enabled(self._device_type):
            # It makes usual numbers of those of 8 bits.
            return self.compute(func, args, kwargs)
        if refused and func.__name__ == "einsum" and not products.sums(args[0]):
            if self.common_card(args, kwargs) is not None:
                refusals.refuse_dtype("outer", tensors[0])
            return self.compute(func, args, kwargs)
        # For factors on different devices PyTorch raises that error first.
        if refused and self.common_card(args, kwargs) is not None and products.named_dtype(func, args, kwargs) is None:
            refusals.refuse_product(func.__name__, tensors[:2] if func.__name__ == "linear" else tensors)
        return self.compute(func, args, kwargs)

    def _compute_elsewhere(self, device: object, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function that has no tensors, only tensors of the CPU, or tensors on different devices."""
        if device is _MIXED or (self.machine.saved_tensor_hooks and device is not CPU and device is not None):
            return self.watched(func, args, kwargs)
        if kwargs and kwargs.get("generator") is not None:
            first = next((value for value in _flat((*args, *kwargs.values())) if isinstance(value, Tensor)), None)
            where = CPU if first is None else _real_device(first)
            generators.check_generator(kwargs["generator"], where, getattr(func, "__name__", ""))
        return func(*args, **kwargs)

    def watched(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function and check each operation in it.

        Raises:
            RuntimeError: what PyTorch raises for operands on different devices.
        """
        first = next((value for value in _flat((*args, *kwargs.values())) if isinstance(value, Tensor)), None)
        if kwargs.get("generator") is not None and first is not None:
            generators.check_generator_of_mixed(func.__name__, kwargs["generator"], self.device_of(first))
        out = kwargs.get("out")
        if isinstance(out, Tensor) and first is not None:
            refusal = out_checks.first_check(func.__name__, self.device_of(first), self.device_of(out))
            if refusal is not None:
                raise refusal
        if torch.is_autocast_enabled(self._device_type):
            # What is on the CPU stays as it is.
            args, kwargs = autocast.converted(func, args, kwargs, self._device_type, self._on_cards)
        with self.watch.on(None if first is None else self.tags.of(first)):
            result = self.run(func, args, kwargs)
        self._refuse_output_elsewhere(args, kwargs)
        return result

    def _refuse_output_elsewhere(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Composite operations write `out=` with `copy_`, after a check that only C++ makes.
        out = kwargs.get("out")
        if isinstance(out, torch.Tensor):
            inputs, device = self.common_device(args), self.device_of(out)
            if isinstance(inputs, torch.device) and inputs != device:
                raise out_checks.otherwise(inputs, device)

    def common_device(self, values: Any, more: Mapping[str, Any] | None = None) -> Any:
        """The device that all tensors in `values` and `more` share, `_MIXED` when there are two, None without any."""
        common: Any = None
        tag = self._tag
        for value in values:
            if isinstance(value, Tensor):
                try:
                    placement = getattr(_storage(value), tag, None)
                except NO_STORAGE:
                    placement = self.tags.placement(value)
                device = CPU if placement is None else placement.device
            elif isinstance(value, _CONTAINERS):
                device = self.common_device(value)
                if device is None:
                    continue
            else:
                continue
            if common is not device and common is not None:
                return _MIXED
            common = device
        if more:
            device = self.common_device(more.values())
            if common is None:
                return device
            if device is not None and device is not common:
                return _MIXED
        return common

    def common_card(self, values: Any, more: Mapping[str, Any] | None = None) -> torch.device | None:
        """The card that all tensors are on; None when they are on the CPU or on different devices."""
        device = self.common_device(values, more)
        return None if device is CPU or device is _MIXED else device

    def device_of(self, tensor: torch.Tensor) -> torch.device:
        """The device of a tensor, simulated or real."""
        return self.tags.of(tensor) or _real_device(tensor)

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function on the real CPU tensors, without a default device that is a simulated card."""
        if _default.CURRENT_DEVICE is None or self.default_card() is None:
            return func(*args, **kwargs)
        with unintercepted():
            return func(*args, **kwargs)

    def create(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], device: Any) -> Any:
        """Run a function that was given the device of its result.

        Raises:
            RuntimeError: there is no such card.
            TypeError: a dtype that the card does not support.
        """
        target = self.cards.get(device) or self.machine.resolve(device)
        out = kwargs.get("out")
        if isinstance(out, Tensor) and (there := self.device_of(out).type) != target.type:
            raise RuntimeError(f"device type {target.type} does not match device type of out parameter ({there})")
        if kwargs.get("pin_memory"):
            if target.type != "cpu":
                raise RuntimeError("Only dense CPU tensors can be pinned")
            # C++ has no driver that could pin memory; `is_pinned` reads this note.
            return self.tags.pin(self.run(func, args, dict(kwargs, device=target, pin_memory=False)))
        if isinstance(func, _OPERATORS) and any(isinstance(value, Tensor) and is_wrapper(value) for value in args):
            # Its class makes the result, of what it wraps.
            return self.run(func, args, dict(kwargs, device=target))
        if _fake_mode(_FAKE) is not None:
            # What is made has no values, and says itself where it is.
            return self.run(func, args, dict(kwargs, device=target))
        kwargs["device"] = CPU
        if target.type != self.machine.device_type:
            kwargs["device"] = target
            generators.check_generator(kwargs.get("generator"), target)
            return self.run(func, args, kwargs)
        if kwargs.get("generator") is not None:
            generators.check_generator(kwargs["generator"], target)
            result = self.run(func, args, kwargs)
        elif func in self._random:
            with generators.drawing(self.machine.generators[target.index]):
                result = self.run(func, args, kwargs)
        else:
            result = self.run(func, args, kwargs)
        if not isinstance(result, Tensor):
            return result
        if self._refused:
            self.check_dtype(result, target, computed=not getattr(func, "__name__", "").startswith("empty"))
        return self.tags.place(result, target)

    def construct(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a factory: its result is on the device in `device=`, else on the default device.

        A tensor among its arguments is read as a number and does not choose the device: `torch.arange(lengths.max())`
        is on the CPU, whatever card `lengths` is on.
        """
        device = kwargs.get("device")
        if device is None:
            device = CPU if kwargs.get("pin_memory") else self.default_card()
        if device is not None:
            return self.create(func, args, kwargs, device)
        out = kwargs.get("out")
        generators.check_generator(kwargs.get("generator"), self.device_of(out) if isinstance(out, Tensor) else CPU)
        result = self.run(func, args, kwargs)
        if out is not None:
            self.tags.resized(out)
        return result

    def draw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function that draws random numbers: from the generator of the card that its tensors are on."""
        if kwargs.get("generator") is not None or kwargs.get("device") is not None:
            return self.compute(func, args, kwargs)
        card = self.common_card(args, kwargs)
        if card is None:
            return self.compute(func, args, kwargs)
        with generators.drawing(self.machine.generators[card.index]):
            return self.compute(func, args, kwargs)

    def check_dtype(self, result: Any, card: torch.device, *, computed: bool = True) -> None:
        """Raise if `card` does not support the dtype of a result.

        Args:
            result: what a function returned.
            card: where it is to be.
            computed: whether a kernel of the card wrote it; what is only copied there, an Intel card can hold.

        Raises:
            TypeError: PyTorch's, for a dtype that Apple's device does not support.
            RuntimeError: PyTorch's, for one that an Intel card cannot compute.
        """
        if self._refused and isinstance(result, Tensor):
            dtype = dtype_name(result.dtype)
            if dtype in self.machine.cards[card.index].refused:
                if self._device_type == "xpu":
                    if computed:
                        raise RuntimeError("Required aspect fp64 is not supported on the device")
                    return
                kind = self.machine.device_type.upper()
                raise TypeError(
                    f"Cannot convert a {kind} Tensor to {dtype} dtype as the {kind} framework doesn't support {dtype}. "
                    "Please use float32 instead."
                )

    def default_card(self) -> torch.device | None:
        """The card on which `torch.set_default_device` or `with torch.device(...)` puts new tensors, or None."""
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
