"""Watches the operations of backward passes, which C++ calls without the torch functions that Python sees."""

from __future__ import annotations

import re
from typing import Any

import torch

from pytest_llmdevice.simulation.functions import FunctionMode
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.tags import unintercepted


def backward_pass(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The handler of `Tensor.backward` and `torch.autograd.grad`, which check no devices themselves.

    Raises:
        RuntimeError: PyTorch's, for a given gradient that is not on its output's device.
    """
    _check_gradients(mode, func, args, kwargs)
    result = mode.run(func, args, kwargs)
    if func is torch.autograd.grad:
        inputs = args[1] if len(args) > 1 else kwargs["inputs"]
        for tensor, gradient in zip([inputs] if isinstance(inputs, torch.Tensor) else inputs, result, strict=True):
            card = mode.tags.of(tensor)
            if card is not None and gradient is not None:
                mode.tags.put(gradient, card)
    return result


def _check_gradients(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    name, position = ("gradient", 1) if func is torch.Tensor.backward else ("grad_outputs", 2)
    outputs, gradients = args[0], args[position] if len(args) > position else kwargs.get(name)
    pairs = zip(
        *([tensors] if isinstance(tensors, torch.Tensor) else tensors or () for tensors in (outputs, gradients)),
        strict=False,
    )
    for index, (output, gradient) in enumerate(pairs):
        if gradient is not None and mode.device_of(output) != mode.device_of(gradient):
            node = "" if output.grad_fn is None else f"Function {output.grad_fn.name()} returned an "
            raise RuntimeError(
                f"{node}invalid gradient at index {index} - expected device {mode.device_of(output)} but got "
                f"{mode.device_of(gradient)}"
            )


def install(mode: FunctionMode, patches: Patches) -> None:
    """Watch the operations that C++ calls by itself: those of backward passes and of TorchScript functions."""
    engine = torch.autograd._engine_run_backward  # type: ignore[attr-defined]

    def run_backward(outputs: Any, gradients: Any, *args: Any, **kwargs: Any) -> Any:
        with unintercepted():
            for output, gradient in zip(outputs, gradients, strict=False):
                card = mode.tags.of(output) if isinstance(output, torch.Tensor) else None
                if card is not None and gradient is not None:
                    # PyTorch has made it of ones outside the interception.
                    mode.tags.put(gradient, card)
        with mode, mode.watch.on(backward=True):
            try:
                return engine(outputs, gradients, *args, **kwargs)
            except RuntimeError as error:
                # PyTorch compares where a gradient is with where it belongs, and reads neither from the tags.
                card = mode.watch.ambient
                if card is None or "invalid gradient at index" not in str(error):
                    raise
                raise RuntimeError(re.sub(r"\bcpu\b", str(card), str(error))) from None

    patches.set(torch.autograd, "_engine_run_backward", run_backward)
    _install_saved_tensor_hooks(mode, patches)
    for scripted in (torch.jit.ScriptFunction, torch._C.ScriptMethod):
        patches.set(scripted, "__call__", _watched_call(mode, scripted.__call__))


def _install_saved_tensor_hooks(mode: FunctionMode, patches: Patches) -> None:
    """Run hooks for saved tensors, which C++ calls in the middle of a function, inside the simulation.

    While hooks are set, every call is watched, so that a result is tagged before a hook gets it.
    """
    autograd: Any = torch._C._autograd
    push, pop = autograd._push_saved_tensors_default_hooks, autograd._pop_saved_tensors_default_hooks

    def with_mode(hook: Any) -> Any:
        def call(value: Any) -> Any:
            with mode:
                return hook(value)

        return call

    def push_with_mode(pack: Any, unpack: Any) -> None:
        push(with_mode(pack), with_mode(unpack))
        mode.machine.saved_tensor_hooks += 1
        mode.machine.needs_full_path = True

    def pop_with_mode() -> None:
        pop()
        mode.machine.saved_tensor_hooks -= 1

    patches.set(autograd, "_push_saved_tensors_default_hooks", push_with_mode)
    patches.set(autograd, "_pop_saved_tensors_default_hooks", pop_with_mode)


def _watched_call(mode: FunctionMode, call: Any) -> Any:
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        mode.watch.refusal = None
        try:
            return mode.watched(call, (self, *args), kwargs)
        except RuntimeError as error:
            if mode.watch.refusal is None:
                raise
            raise type(error)(f"{error}{mode.watch.refusal}") from None

    return run
