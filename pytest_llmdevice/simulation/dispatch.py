"""Applies PyTorch's device rules to every single operation below autograd, where tensors are on several devices."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode

from pytest_llmdevice.simulation import decision
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.rules import Operand
from pytest_llmdevice.simulation.tags import Tags, unintercepted

_META: Final = torch._C.DispatchKeySet(torch._C.DispatchKey.Meta)
_VIEWS: Final = torch._C.DispatchKey.ADInplaceOrView
_NOTHING: Final = nullcontext()


class _State(threading.local):
    ambient: torch.device | None = None
    """The device for the result of an operation without operands."""
    backward = False
    """Whether the operations are those of a backward pass."""
    node: Any = None
    """The node of the backward graph that runs now."""


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The dispatch mode that sees every operation below autograd with its operands, and applies the rule for it.

    It costs ten times as much as `FunctionMode`, so it is entered only for calls that need it: those with tensors on
    different devices, and those that C++ makes by itself (a backward pass, a scripted function).

    Attributes:
        interception: puts the mode on that sees the functions that Python calls; it is off while one of them runs.
        refusal: the text of the last error that a rule raised, which TorchScript's interpreter loses. Not the error:
            its traceback would keep the model alive that it was raised in.
    """

    def __init__(self, machine: Machine, tags: Tags, interception: Callable[[], AbstractContextManager[Any]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.interception = interception
        self._machine = machine
        self._tags = tags
        self._state = _State()
        self.refusal: str | None = None

    @property
    def ambient(self) -> torch.device | None:
        """The device for the result of an operation without operands, of a backward pass the card it is on."""
        return self._state.ambient

    @contextmanager
    def on(self, ambient: torch.device | None = None, *, backward: bool = False) -> Iterator[None]:
        """Watch the operations that are called inside.

        Args:
            ambient: the device for results of operations without operands, which C++ makes in the middle of a
                function.
            backward: it is a backward pass. Its operations run on the device of their operands and none is refused:
                tensors that C++ saved for it, inside a function that was not watched, have no tag.
        """
        state = self._state
        before = state.backward, state.node, state.ambient
        state.backward, state.node, state.ambient = backward, None, ambient
        try:
            if _get_current_dispatch_mode() is self:
                yield
            else:
                with self:
                    yield
        finally:
            state.backward, state.node, state.ambient = before

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        operands = decision.operands_of(func, args, kwargs, self._tags)
        requested = kwargs.get("device")
        if requested is not None and requested.type == self._machine.device_type:
            device: torch.device | None = self._machine.resolve(requested)
            kwargs = dict(kwargs, device=torch.device("cpu"))
        elif self._state.backward:
            device = self._backward_device(operands)
        elif not operands:
            device = self._state.ambient
        elif decision.without_numbers(operands, self._machine.device_type):
            with self.interception():
                return self._compose(func.redispatch, _META, args, kwargs, operands[0].device)
        elif (key := decision.composite_key(func, operands)) is not None:
            return self._compose(func._op_dk, key, args, kwargs, operands[0].device)
        elif (devices := decision.result_devices(func, operands)) is not None:
            with unintercepted():
                return self._put_results(func(*args, **kwargs), devices)
        else:
            try:
                device = decision.result_device(func, operands, args)
            except RuntimeError as error:
                self.refusal = str(error)
                raise
        # In a backward pass the function mode is on as well, and this is no call that Python made.
        with unintercepted():
            result = func(*args, **kwargs)
        if device is not None and device.type == self._machine.device_type:
            self._tags.put_all(result, device)
        return result

    def _backward_device(self, operands: Sequence[Operand]) -> torch.device | None:
        """The device of a backward operation: its operands' card, else the last card of the same node."""
        state = self._state
        node = torch._C._current_autograd_node()
        if node is not state.node:
            state.node, state.ambient = node, None
        cards = (operand.device for operand in operands if operand.device.type == self._machine.device_type)
        state.ambient = next(cards, state.ambient)
        return state.ambient

    def _compose(self, call: Any, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any], device: torch.device) -> Any:
        """Run an operation that consists of others and watch those; they create on its first operand's device."""
        state = self._state
        before, state.ambient = state.ambient, device
        # In inference mode nothing above this level has seen the views that it makes. PyTorch's own are told of there,
        # and require gradients as what they are of, by which `matmul` chooses its kernel.
        views = torch._C._SetExcludeDispatchKeyGuard(_VIEWS, False) if torch.is_inference_mode_enabled() else _NOTHING
        try:
            with self, views:
                return call(key, *args, **kwargs)
        finally:
            state.ambient = before

    def _put_results(self, results: Any, devices: list[torch.device]) -> Any:
        for tensor, device in zip(results or (), devices, strict=False):
            if device.type == self._machine.device_type:
                self._tags.put(tensor, device)
        return results
