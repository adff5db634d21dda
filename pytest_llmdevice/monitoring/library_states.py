"""Gives each load its own copy of what libraries share among objects, so that no cell finds what another has left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class _Copy(dict[Any, Any]):
    """The shared dictionary of a class while a load has its own; `original` is what was there before all loads."""

    original: dict[Any, Any]


def separate_library_states() -> Callable[[], None]:
    """Copy what the objects of classes like accelerate's `PartialState` share, as it was before all loads.

    The objects that a load makes keep the copy. Inside a simulation it does nothing: a simulated machine has states of
    its own.

    Returns:
        a function that puts back what was there; called a second time, it does nothing.
    """
    from pytest_llmdevice.simulation.remembered import shared_states
    from pytest_llmdevice.simulation.simulate import active

    if active() is not None:
        return lambda: None
    before: list[tuple[type, str, dict[Any, Any]]] = []
    for kind, attribute in shared_states():
        now = vars(kind)[attribute]
        if isinstance(now, dict):
            original = now.original if isinstance(now, _Copy) else now
            own = _Copy(original)
            own.original = original
            before.append((kind, attribute, now))
            setattr(kind, attribute, own)
    known = {(kind, attribute) for kind, attribute, _ in before}

    def put_back() -> None:
        while before:
            kind, attribute, state = before.pop()
            # It may be the copy of a load inside this one, and is something else where this was ended before.
            if isinstance(vars(kind)[attribute], _Copy):
                setattr(kind, attribute, state)
        for kind, attribute in set(shared_states()) - known:
            # The load has imported the library.
            known.add((kind, attribute))
            if isinstance(vars(kind)[attribute], dict):
                setattr(kind, attribute, {})

    return put_back
