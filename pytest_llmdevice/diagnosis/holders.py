"""Finds the named objects that keep another object alive: global variables, attributes, caches, functions."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, CellType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any, Final

DEPTH: Final = 4
"""How many references are followed backwards: object, list, dictionary of an instance, instance."""

MOST_REFERRERS: Final = 300
"""How many referrers are examined at most: finding the referrers of one object scans all objects."""


@contextmanager
def every_object() -> Iterator[None]:
    """Have Python's garbage collector know every object inside.

    What was frozen is none of its business, and `gc.get_referrers` does not look there: a list of a module that holds
    a model was made before cells ran.
    """
    frozen = gc.get_freeze_count()
    if frozen:
        gc.unfreeze()
    try:
        yield
    finally:
        if frozen:
            # Garbage that is frozen would never go.
            gc.collect()
            gc.freeze()


def held_by_frames(kept: object) -> bool:
    """Whether a frame that is not running refers to `kept`: that of an exception that somebody keeps.

    To be called inside `every_object`.
    """
    running = set()
    frame: FrameType | None = sys._getframe()  # noqa: SLF001  # documented
    while frame is not None:
        running.add(id(frame))
        frame = frame.f_back
    return any(isinstance(owner, FrameType) and id(owner) not in running for owner in gc.get_referrers(kept))


def holders(kept: object) -> tuple[str, ...]:
    """Describe what refers to `kept`: a global variable, an attribute, a cache, a function; empty if unknown.

    Frames are ignored, because the caller's own frames refer to it. To be called inside `every_object`.
    """
    known = {id(kept)}
    level: list[object] = [kept]
    examined = 0
    for _ in range(DEPTH):
        names: dict[str, None] = {}
        following: list[object] = []
        for referred in level:
            for owner in _referrers(referred, level):
                examined += 1
                if id(owner) in known or examined > MOST_REFERRERS:
                    continue
                known.add(id(owner))
                name = _name(owner, referred, known)
                if name:
                    names[name] = None
                else:
                    following.append(owner)
        if names:
            return tuple(names)
        level = following
    return tuple(dict.fromkeys(f"a {type(owner).__name__}" for owner in level))


def _referrers(referred: object, own: list[object]) -> Iterator[object]:
    for owner in gc.get_referrers(referred):
        if owner is not own and not isinstance(owner, FrameType) and owner is not referred:
            yield owner


def _name(owner: Any, referred: object, known: set[int]) -> str:
    """Describe `owner`, which refers to `referred`, by name; empty if it has no name and its own referrers matter.

    `known` has the ids of all that was followed so far.
    """
    if isinstance(owner, dict):
        key = next((key for key, value in owner.items() if value is referred), None)
        module = owner.get("__name__") if isinstance(owner.get("__name__"), str) else None
        if module in sys.modules and vars(sys.modules[module]) is owner:
            return f"the global variable {key} of {module}"
        return ""
    if type(owner).__name__ == "_lru_cache_wrapper":
        return f"the cache of {_qualified(owner)}"
    if isinstance(owner, CellType):
        return ""
    if isinstance(owner, (FunctionType, MethodType, BuiltinFunctionType)):
        return f"the function {_qualified(owner)}"
    if isinstance(owner, (list, tuple, set, frozenset, ModuleType)) or not hasattr(owner, "__dict__"):
        return ""
    # Up to Python 3.12 the referrer may be the instance or its dictionary; the attributes are searched in both cases.
    held = known if vars(owner) is referred else {id(referred)}
    key = next((key for key, value in vars(owner).items() if id(value) in held), None)
    kind = owner.__qualname__ if isinstance(owner, type) else type(owner).__qualname__
    return f"the attribute {key} of {type(owner).__module__}.{kind}" if key else f"a {kind}"


def _qualified(function: Any) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', '?')}"
