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
            `"precision"`, `"collector"`, `"gradients"`, `"threads"`, `"determinism"`, `"kernels"`, `"processes"`,
            `"signal"`, `"stream"`, `"logging"`, `"locale"`, `"limit"`, `"hook"`, `"random"`, `"graph"`, `"seed"` for
            random numbers that were seeded and none drawn since, `"checkpoint"` for a file that the model was loaded
            from, `"model"` for a tensor of the model that was handed over, or `"training"` for its mode.
        name: which one, in words.
        before: its value, in words.
        after: what it became. Of an environment variable only whether it was set, changed or removed, unless it is
            about devices: others may be secret.
    """

    kind: str
    name: str
    before: str
    after: str


Comparison: TypeAlias = Callable[[], Iterator[Change]]
"""A function that is created before a call; called afterwards, it restores what it watches and yields the changes."""
