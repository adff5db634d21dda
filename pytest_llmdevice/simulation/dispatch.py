"""One operation at a time: what PyTorch's kernels do with tensors in different places."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode

from pytest_llmdevice.simulation import rules
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.tags import Tags


class _State(threading.local):
    ambient: torch.device | None = None
    """Where an operation without operands puts its result."""
    backward = False
    """Whether the operations are those of a backward pass."""
    node: Any = None
    """The node of the backward graph that runs."""


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation below autograd, with the operands it really has, and applies the rule for it.

    It costs ten times as much as `Functions` does, so that it is entered only for calls that need it: those with
    tensors in different places, and for what C++ calls by itself (a backward pass, a scripted function).

    Attributes:
        refusal: the last error it raised; TorchScript's interpreter loses the text.
    """

    def __init__(self, machine: Machine, tags: Tags) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._machine = machine
        self._tags = tags
        self._state = _State()
        self.refusal: RuntimeError | None = None

    @contextmanager
    def on(self, ambient: torch.device | None = None, *, backward: bool = False) -> Iterator[None]:
        """Watch what is called inside.

        Args:
            ambient: where an operation without operands puts its result: what C++ makes in the middle of a function.
            backward: it is a backward pass. Its operations go where their operands are and none is refused: what C++
                saved for it, inside a function that nobody watched, has no mark.
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
        operands = rules.operands(func, args, kwargs, self._tags)
        told = kwargs.get("device")
        if told is not None and told.type == self._machine.device_type:
            place: torch.device | None = self._machine.resolve(told)
            kwargs = dict(kwargs, device=torch.device("cpu"))
        elif self._state.backward:
            place = self._follow(operands)
        elif not operands:
            place = self._state.ambient
        elif (key := rules.composition(func, operands)) is not None:
            return self._compose(func._op_dk, key, args, kwargs, operands[0].device)
        elif (several := rules.places(func, operands)) is not None:
            with torch._C.DisableTorchFunction():
                return self._put_each(func(*args, **kwargs), several)
        else:
            try:
                place = rules.place(func, operands, args)
            except RuntimeError as error:
                self.refusal = error
                raise
        # In a backward pass Python's interception is on as well, and this is no call of Python's.
        with torch._C.DisableTorchFunction():
            result = func(*args, **kwargs)
        if place is not None and place.type == self._machine.device_type:
            self._tags.put_all(result, place)
        return result

    def _follow(self, operands: Sequence[rules.Operand]) -> torch.device | None:
        """Where an operation of a backward pass runs: on its operands' card, else on the last one of its node."""
        state = self._state
        node = torch._C._current_autograd_node()
        if node is not state.node:
            state.node, state.ambient = node, None
        cards = (operand.device for operand in operands if operand.device.type == self._machine.device_type)
        state.ambient = next(cards, state.ambient)
        return state.ambient

    def _compose(self, call: Any, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any], device: torch.device) -> Any:
        """Run an operation that consists of others, and look at those. What it creates is beside its first operand."""
        state = self._state
        before, state.ambient = state.ambient, device
        try:
            with self:
                return call(key, *args, **kwargs)
        finally:
            state.ambient = before

    def _put_each(self, results: Any, devices: list[torch.device]) -> Any:
        for tensor, device in zip(results or (), devices, strict=False):
            if device.type == self._machine.device_type:
                self._tags.put(tensor, device)
        return results
