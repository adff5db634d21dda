"""Defines `Change`, the record of a change that the code under test made to the process or the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Change:
    """A difference in the process or the model between before and after a call of the code under test.

    Attributes:
        kind: `"environment"`, `"dtype"`, `"device"`, `"card"`, `"function"`, `"mode"`, `"autocast"`, `"folder"`,
            `"precision"`, `"collector"`, `"checkpoint"` for a file that the model was loaded from, or `"model"` for a
            tensor or the mode of the model.
        name: what changed, in words.
        before: its earlier value, in words.
        after: its later value. For an environment variable only whether it was set, changed or removed, because its
            value may be secret, unless the variable is about devices.
    """

    kind: str
    name: str
    before: str
    after: str


Comparison: TypeAlias = Callable[[], Iterator[Change]]
"""A function that is created before a call; called afterwards, it restores what it watches and yields the changes."""
