"""What keeps an object alive that should be gone, in words that lead to the line."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from types import BuiltinFunctionType, CellType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any, Final

DEPTH: Final = 4
"""How many references are followed back: object, list, dictionary of an instance, instance."""

MOST: Final = 300
"""How many referrers are looked at: asking who refers to an object walks through all there are."""


def holders(kept: object) -> tuple[str, ...]:
    """What refers to `kept` and has a name: a global variable, an attribute, a cache, a closure. Empty where unknown.

    Frames do not count: the caller's own hold it.
    """
    known = {id(kept)}
    level: list[object] = [kept]
    looked = 0
    for _ in range(DEPTH):
        found: dict[str, None] = {}
        following: list[object] = []
        for held in level:
            for owner in _referrers(held, level):
                looked += 1
                if id(owner) in known or looked > MOST:
                    continue
                known.add(id(owner))
                name = _name(owner, held)
                if name:
                    found[name] = None
                else:
                    following.append(owner)
        if found:
            return tuple(found)
        level = following
    return tuple(dict.fromkeys(f"a {type(owner).__name__}" for owner in level))


def _referrers(held: object, own: list[object]) -> Iterator[object]:
    for owner in gc.get_referrers(held):
        if owner is not own and not isinstance(owner, FrameType) and owner is not held:
            yield owner


def _name(owner: Any, held: object) -> str:
    """`owner`, which refers to `held`, by name; empty for what has none itself and is held by something else."""
    if isinstance(owner, dict):
        key = next((key for key, value in owner.items() if value is held), None)
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
    # Up to Python 3.12 an instance's own dictionary may be there or not: its attributes are looked at in any case.
    key = next((key for key, value in vars(owner).items() if value is held), None)
    kind = owner.__qualname__ if isinstance(owner, type) else type(owner).__qualname__
    return f"the attribute {key} of {type(owner).__module__}.{kind}" if key else f"a {kind}"


def _qualified(function: Any) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', '?')}"
