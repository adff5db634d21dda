"""What a load or a generation changed of the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Change:
    """Something of the process that was not as before when the code under test came back.

    Attributes:
        kind: `"environment"`, `"dtype"`, `"device"`, `"card"`, `"function"`, `"mode"`, `"autocast"`, `"folder"`,
            `"precision"`, `"collector"`, `"checkpoint"` for a file that the model was loaded from, `"model"` for a
            tensor of the model that was handed over, or `"training"` for its mode.
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
"""Made before; called afterwards, it puts back what it watches and yields what had changed."""
