"""Collects the known causes of findings, one module for each family, as `HINTS`."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Final

from pytest_llmdevice.diagnosis.finding import Hint
from pytest_llmdevice.diagnosis.hints import (
    dtypes,
    generation,
    loads,
    placement,
    quantization,
    raised,
    saving,
    sequences,
    state,
    values,
)
from pytest_llmdevice.errors import FailureClass

_FAILURES: Final[tuple[tuple[ModuleType, FailureClass | None], ...]] = (
    (loads, "loader"),
    (placement, "placement"),
    (dtypes, "dtype"),
    (values, "numeric"),
    (quantization, "dtype"),
    (state, "loader"),
    (generation, "numeric"),
    (sequences, "numeric"),
    (saving, "loader"),
    # Each of these says itself what kind of failure it is.
    (raised, None),
)


RAISED: Final = "something was raised, and its text, or that of what it came from, has one of the patterns of this hint"
"""When hints with patterns are given."""


def _hints(module: ModuleType, failure: FailureClass | None) -> tuple[Hint, ...]:
    found = (hint for hint in vars(module).values() if isinstance(hint, Hint))
    own = (replace(hint, when=hint.when or RAISED) if hint.patterns else hint for hint in found)
    return tuple(hint if failure is None else replace(hint, failure=failure) for hint in own)


HINTS: Final = tuple(hint for module, failure in _FAILURES for hint in _hints(module, failure))
"""In the order in which their patterns are tried."""
