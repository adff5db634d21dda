"""Tells calls of a model that a target makes from those that a check makes in between, to find out something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_unobserved: Final[list[None]] = []
"""One entry for each `unobserved` that is under way."""


@contextmanager
def unobserved() -> Iterator[None]:
    """Inside the context, calls of a model are none of the target's, and are not recorded."""
    _unobserved.append(None)
    try:
        yield
    finally:
        _unobserved.pop()


def observed() -> bool:
    """Whether calls are to be recorded."""
    return not _unobserved
