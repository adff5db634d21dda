"""Attributes set for a while and put back, each exactly as it was."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

_ABSENT = object()


class Patches:
    """A stack of changes that `undo` takes back in reverse order, whatever happened in between."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute of a module, class or object; one that was inherited or absent is deleted again."""
        # What a class or module holds itself, not what looking it up would return: a staticmethod stays one.
        before = vars(owner).get(name, _ABSENT)
        setattr(owner, name, value)
        self._stack.callback(_restore, owner, name, before)

    def later(self, callback: Callable[[], object]) -> None:
        """Call `callback` when the changes are taken back."""
        self._stack.callback(callback)

    def enter(self, context: Any) -> Any:
        """Enter a context that is left when the changes are taken back."""
        return self._stack.enter_context(context)

    def undo(self) -> None:
        """Take every change back."""
        self._stack.close()


def _restore(owner: Any, name: str, before: object) -> None:
    if before is _ABSENT:
        delattr(owner, name)
    else:
        setattr(owner, name, before)
