"""Finds the module in what a target returned: a pipeline, a tuple with a tokenizer, a class of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torch import nn

DEPTH: Final = 2
"""How deep a model is looked for: `pipeline.model.model` is two attributes deep."""

USUAL: Final = "model"
"""The name that a model usually has in what holds it."""


def modules_in(returned: Any) -> dict[str, nn.Module]:
    """The modules in `returned` by the way to them (`.pipeline.model`), none of which is a part of another one.

    Attributes are looked at as they are stored, two levels deep, the public ones first; no property is asked, so that
    nothing is loaded or computed by looking. Empty where there is none.
    """
    found: dict[int, tuple[str, nn.Module]] = {}
    level: list[tuple[str, Any]] = [("", returned)]
    seen: set[int] = {id(returned)}
    for _ in range(DEPTH):
        below: list[tuple[str, Any]] = []
        for path, holder in level:
            for step, value in _held(holder):
                if id(value) in seen:
                    continue
                seen.add(id(value))
                if _is_module(value):
                    found[id(value)] = path + step, value
                else:
                    below.append((path + step, value))
        level = below
    parts = {id(part) for _, module in found.values() for part in module.modules() if part is not module}
    whole = {path: module for path, module in found.values() if id(module) not in parts}
    # What has no weights beside one that has some is a helper, such as nnsight's generator.
    weighty = {path: module for path, module in whole.items() if next(iter(module.parameters()), None) is not None}
    return weighty or whole


def only_model(found: Mapping[str, nn.Module]) -> str:
    """The way to the one of `found` that is meant: the only one, the only public one, or that called `model`.

    Empty where it cannot be told.
    """
    public = [path for path in found if not any(part.startswith("_") for part in path.split("."))]
    named = [path for path in found if path.rpartition(".")[2].strip("[]'\"") == USUAL]
    for candidates in (list(found), public, named):
        if len(candidates) == 1:
            return candidates[0]
    return ""


def _held(holder: Any) -> Iterator[tuple[str, Any]]:
    """The attributes, values or items of `holder`, public ones first, each with the step to it."""
    if isinstance(holder, (str, bytes, int, float, type)) or holder is None:
        return
    if isinstance(holder, Mapping):
        yield from ((f"[{key!r}]", value) for key, value in holder.items())
        return
    if isinstance(holder, (tuple, list)):
        yield from ((f"[{number}]", value) for number, value in enumerate(holder))
        return
    attributes: dict[str, Any] = {}
    for stored in (holder, getattr(type(holder), "__slots__", ())):
        if stored is holder:
            attributes |= _stored(holder)
        else:
            for name in (stored,) if isinstance(stored, str) else tuple(stored):
                try:
                    attributes[name] = object.__getattribute__(holder, name)
                except AttributeError:
                    continue
    for name in sorted(attributes, key=lambda name: str(name).startswith("_")):
        yield f".{name}", attributes[name]


def _stored(holder: Any) -> dict[str, Any]:
    """The attributes that an instance keeps; those that pydantic keeps apart (`PrivateAttr`) too."""
    found: dict[str, Any] = {}
    for name in ("__dict__", "__pydantic_private__"):
        try:
            kept = object.__getattribute__(holder, name)
        except AttributeError:
            continue
        if isinstance(kept, Mapping):
            found |= {str(key): value for key, value in kept.items()}
    return found


def _is_module(value: object) -> bool:
    from torch import nn

    # Not `isinstance` alone: a mock or a lazy object may claim any class.
    return isinstance(value, nn.Module) and issubclass(type(value), nn.Module)
