"""Describes what a target's `load` returned instead of a model, and says what to return."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SOME = 3


def not_a_model(returned: object) -> str:
    """A clause such as `"a tuple of LlamaForCausalLM and LlamaTokenizerFast, not a torch.nn.Module: return the ..."`.

    Args:
        returned: anything but an instance of `torch.nn.Module`. A coroutine is closed, so that nobody misses its await.
    """
    what, advice = _described(returned)
    return f"{what}, not a torch.nn.Module" + (f": {advice}" if advice else "")


def _described(returned: Any) -> tuple[str, str]:
    if returned is None:
        return "None", "is its `return` missing?"
    if inspect.isclass(returned):
        return f"the class {returned.__name__}", "return an instance with its weights, as from_pretrained gives it"
    if inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        return _a(returned), "load is called without await, so it cannot be `async`; run the coroutine in it"
    if inspect.isgenerator(returned):
        return "a generator", "there is a `yield` in load; return the model"
    if isinstance(returned, (str, bytes, Path)):
        kind = "a path" if isinstance(returned, Path) else _a(returned)
        return f"{kind} ({_shortened(returned)})", "return what from_pretrained makes of it"
    if isinstance(returned, Mapping):
        return _mapping(returned)
    if isinstance(returned, (tuple, list)):
        kind = f"{_a(returned)} of {_enumerated(returned)}"
        return kind, "return the model alone" if any(map(_is_module, returned)) else ""
    if inspect.isroutine(returned):
        return f"the function {getattr(returned, '__name__', '?')}", "return what it returns"
    return _a(returned), _holder(returned)


def _mapping(returned: Mapping[Any, Any]) -> tuple[str, str]:
    import torch

    kind = _a(returned)
    values = list(returned.values())
    if values and all(isinstance(value, torch.Tensor) for value in values):
        advice = "a state dict is not a model; return the model that these weights were loaded into"
        return f"{kind} of {len(values)} tensors", advice
    for key, value in returned.items():
        if _is_module(value):
            return f"{kind} with {_a(value)} under {key!r}", "return the model alone"
    return kind, ""


def _holder(returned: Any) -> str:
    """Where in an object that is no module its model is: a pipeline, a trainer, a wrapper class."""
    attributes = getattr(returned, "__dict__", {})
    for name in ("model", *attributes):
        if _is_module(attributes.get(name)):
            owner = "pipeline." if _type(returned).endswith("Pipeline") else "its attribute "
            return f"return {owner}{name}"
    return ""


def _is_module(value: object) -> bool:
    from torch import nn

    return isinstance(value, nn.Module)


def _type(value: object) -> str:
    return type(value).__name__


def _a(value: object) -> str:
    name = _type(value)
    return f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"


def _shortened(value: object) -> str:
    text = repr(str(value))
    return text if len(text) <= 80 else f"{text[:76]}...'"


def _enumerated(values: tuple[Any, ...] | list[Any]) -> str:
    names = ["None" if value is None else _type(value) for value in values[:_SOME]]
    if len(values) > _SOME:
        names.append(f"{len(values) - _SOME} more")
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else (names or ["nothing"])[0]
