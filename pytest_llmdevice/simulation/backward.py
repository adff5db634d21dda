"""Backward passes: C++ calls their operations, and Python only the hooks and functions that a user wrote."""

from __future__ import annotations

from typing import Any

import torch

from pytest_llmdevice.simulation.functions import Functions
from pytest_llmdevice.simulation.patches import Patches


def unwatched(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.backward` and `torch.autograd.grad`: they look at no device themselves."""
    _check_given(mode, func, args, kwargs)
    result = mode.run(func, args, kwargs)
    if func is torch.autograd.grad:
        inputs = args[1] if len(args) > 1 else kwargs["inputs"]
        for tensor, gradient in zip([inputs] if isinstance(inputs, torch.Tensor) else inputs, result, strict=True):
            card = mode.tags.of(tensor)
            if card is not None and gradient is not None:
                mode.tags.put(gradient, card)
    return result


def _check_given(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    name, position = ("gradient", 1) if func is torch.Tensor.backward else ("grad_outputs", 2)
    outputs, gradients = args[0], args[position] if len(args) > position else kwargs.get(name)
    pairs = zip(
        *([each] if isinstance(each, torch.Tensor) else each or () for each in (outputs, gradients)), strict=False
    )
    for index, (output, gradient) in enumerate(pairs):
        if gradient is not None and mode.place_of(output) != mode.place_of(gradient):
            node = "" if output.grad_fn is None else f"Function {output.grad_fn.name()} returned an "
            raise RuntimeError(
                f"{node}invalid gradient at index {index} - expected device {mode.place_of(output)} but got "
                f"{mode.place_of(gradient)}"
            )


def install(functions: Functions, patches: Patches) -> None:
    """Have what C++ calls by itself watched: a backward pass, and functions that TorchScript runs."""
    engine = torch.autograd._engine_run_backward  # type: ignore[attr-defined]

    def run_backward(outputs: Any, gradients: Any, *args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunction():
            for output, gradient in zip(outputs, gradients, strict=False):
                card = functions.tags.of(output) if isinstance(output, torch.Tensor) else None
                if card is not None and gradient is not None:
                    # Made of ones where nobody looked.
                    functions.tags.put(gradient, card)
        with functions, functions.watch.on(backward=True):
            return engine(outputs, gradients, *args, **kwargs)

    patches.set(torch.autograd, "_engine_run_backward", run_backward)
    _let_hooks_see(functions, patches)
    for scripted in (torch.jit.ScriptFunction, torch._C.ScriptMethod):
        patches.set(scripted, "__call__", _watched_call(functions, scripted.__call__))


def _let_hooks_see(functions: Functions, patches: Patches) -> None:
    """Have the hooks for saved tensors, which C++ calls in the middle of a function, see the simulated devices.

    While there are any, every call is watched, so that a result has its place before a hook sees it.
    """
    autograd: Any = torch._C._autograd
    push, pop = autograd._push_saved_tensors_default_hooks, autograd._pop_saved_tensors_default_hooks

    def seeing(hook: Any) -> Any:
        def call(value: Any) -> Any:
            with functions:
                return hook(value)

        return call

    def push_seeing(pack: Any, unpack: Any) -> None:
        push(seeing(pack), seeing(unpack))
        functions.machine.saved_tensor_hooks += 1
        functions.machine.careful = True

    def pop_seeing() -> None:
        pop()
        functions.machine.saved_tensor_hooks -= 1

    patches.set(autograd, "_push_saved_tensors_default_hooks", push_seeing)
    patches.set(autograd, "_pop_saved_tensors_default_hooks", pop_seeing)


def _watched_call(functions: Functions, call: Any) -> Any:
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        functions.watch.refusal = None
        try:
            return functions.watched(call, (self, *args), kwargs)
        except RuntimeError as error:
            if functions.watch.refusal is None:
                raise
            raise type(error)(f"{error}{functions.watch.refusal}") from None

    return run
