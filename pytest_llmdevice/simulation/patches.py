"""Sets attributes of modules, classes and objects temporarily, and restores them exactly."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

_ABSENT = object()


class Patches:
    """A stack of changes that `undo` reverts in reverse order, also after an error in one of them."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute of a module, class or object; `undo` deletes one that was inherited or absent."""
        # `vars` returns the stored object itself, so that a staticmethod is restored as a staticmethod.
        before = vars(owner).get(name, _ABSENT)
        setattr(owner, name, value)
        self._stack.callback(_restore, owner, name, before)

    def later(self, callback: Callable[[], object]) -> None:
        """Call `callback` when the changes are reverted."""
        self._stack.callback(callback)

    def enter(self, context: Any) -> Any:
        """Enter a context that is left when the changes are reverted."""
        return self._stack.enter_context(context)

    def undo(self) -> None:
        """Revert every change."""
        self._stack.close()


def _restore(owner: Any, name: str, before: object) -> None:
    if before is _ABSENT:
        delattr(owner, name)
    else:
        setattr(owner, name, before)
