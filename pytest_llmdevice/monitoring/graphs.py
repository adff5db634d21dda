"""Finds tensors that keep an autograd graph alive, and with it all that was computed on the way to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final

from pytest_llmdevice.monitoring.change import Change, Comparison

_DEPTH: Final = 6
"""A cache in a list on a module holds layers, which hold tensors in a dictionary."""

_MOST: Final = 20_000
"""Objects that are looked at: a target may hold data that has nothing to do with a model."""

_LEAVES: Final = (str, bytes, int, float, complex, type, FunctionType, BuiltinFunctionType, MethodType, ModuleType)


def kept_graphs(model: Any, target: Any) -> Comparison:
    """Watch what the modules of `model` and the attributes of `target` hold; yields a change for each new graph."""
    before = set(graphs(model, target))

    def compare() -> Iterator[Change]:
        for name in graphs(model, target):
            if name not in before:
                yield Change("graph", name, "no autograd graph", "the graph of what was computed")

    return compare


def graphs(model: Any, target: Any) -> list[str]:
    """The names of the tensors with a graph in what `model` and `target` hold, one for each holder."""
    import torch

    found: list[str] = []
    seen: set[int] = set()
    for name, module in model.named_modules() if isinstance(model, torch.nn.Module) else ():
        # Parts have their own turn, and a parameter is a leaf.
        seen.add(id(module))
        held = {key: value for key, value in vars(module).items() if key not in {"_modules", "_parameters"}}
        found += _first(held, name or "the model", seen)
    held = vars(target) if hasattr(target, "__dict__") else {}
    if isinstance(target, ModuleType):
        held = {key: value for key, value in held.items() if not key.startswith("__")}
    return found + _first(held, "the target", seen)


def _first(held: Mapping[str, Any], holder: str, seen: set[int]) -> list[str]:
    for key, value in held.items():
        path = next(_walk(value, key, seen, 0), None)
        if path is not None:
            return [f"{holder}, {path}"]
    return []


def _walk(value: Any, path: str, seen: set[int], depth: int) -> Iterator[str]:
    import torch

    if value is None or isinstance(value, _LEAVES):
        return
    if isinstance(value, torch.Tensor):
        if value.grad_fn is not None:
            yield path
        return
    if depth > _DEPTH or id(value) in seen or len(seen) > _MOST:
        return
    seen.add(id(value))
    # No other mapping: looking at one may load weights from a disk.
    if isinstance(value, dict):
        for key, inner in list(value.items()):
            yield from _walk(inner, f"{path}[{key!r}]", seen, depth + 1)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for number, inner in enumerate(value):
            yield from _walk(inner, f"{path}[{number}]", seen, depth + 1)
    elif hasattr(value, "__dict__"):
        for key, inner in list(vars(value).items()):
            if key not in {"_modules", "_parameters"}:
                yield from _walk(inner, f"{path}.{key}", seen, depth + 1)
