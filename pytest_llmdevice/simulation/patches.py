"""Sets attributes of modules, classes and objects temporarily, and restores them exactly, also when interrupted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

_ABSENT = object()


class Patches:
    """A stack of changes that `undo` reverts in reverse order, also after an error in one of them.

    An interruption, as that of a time limit, can come between any two steps. So how to revert a change is noted before
    the change is made, and reverting twice does no harm.
    """

    def __init__(self) -> None:
        self._changes: list[Callable[[], object]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute of a module, class or object; `undo` deletes one that was inherited or absent."""
        # `vars` returns the stored object itself, so that a staticmethod is restored as a staticmethod.
        self.later(partial(_restore, owner, name, vars(owner).get(name, _ABSENT)))
        setattr(owner, name, value)

    def later(self, callback: Callable[[], object]) -> None:
        """Call `callback` when the changes are reverted; after an interruption of it, once more."""
        self._changes.append(callback)

    def undo(self) -> None:
        """Revert every change. What is raised meanwhile is raised at the end."""
        try:
            self._undo()
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        failed = None
        error: BaseException | None = None
        while self._changes:
            try:
                self._revert()
            except BaseException as raised:  # noqa: BLE001  # raised below
                error = raised
                if self._changes and self._changes[-1] is failed:
                    self._changes.pop()
                elif self._changes:
                    failed = self._changes[-1]
        if error is not None:
            raise error

    def _revert(self) -> None:
        while self._changes:
            self._changes[-1]()
            self._changes.pop()


def _restore(owner: Any, name: str, before: object) -> None:
    if before is not _ABSENT:
        setattr(owner, name, before)
    elif name in vars(owner):
        delattr(owner, name)
