"""Keeps what a target was before its first load, for a process in which nothing was loaded."""

from __future__ import annotations

import pickle
import weakref
from types import ModuleType
from typing import Any, Final

from pytest_llmdevice.errors import of_target


class ModuleName(str):
    """The name of a module that is a target."""

    __slots__ = ()


_known: Final[dict[int, tuple[weakref.ref[Any], bytes]]] = {}
"""By the id of a target, of whose equality nothing is known: itself, and pickled before its first load."""


def remember(target: Any) -> None:
    """Pickle `target` as it is now, if this is the first time that it is seen: what it loads may change it."""
    if (before := _known.get(id(target))) is not None and before[0]() is target:
        return
    try:
        reference = weakref.ref(target)
        pickled = pickle.dumps(ModuleName(target.__name__) if isinstance(target, ModuleType) else target)
    except of_target():
        # An object of a user's may raise anything.
        return
    _known[id(target)] = reference, pickled


def pristine(target: Any) -> bytes:
    """`target` before its first load, pickled, a module as its `ModuleName`; empty where it cannot be had."""
    before = _known.get(id(target))
    return before[1] if before is not None and before[0]() is target else b""
