"""Makes values that come from the code under test fit for a record, a report of pytest and another process."""

from __future__ import annotations

import math
from typing import Any, Final

from pytest_llmdevice.errors import printed
from pytest_llmdevice.text import encodable

_LARGEST: Final = 2**63
"""What other readers of JSON take for a whole number."""

_PLAIN: Final = frozenset({type(None), bool, bytes, complex})


def clean(value: Any, *, numbers: bool = True) -> Any:
    r"""`value`, made of nothing but Python's own plain types, and texts that every encoding has.

    Lone surrogates become escapes, `\udcff`. A number of another library becomes Python's, and anything else its text.

    Args:
        value: data, as deep as it is.
        numbers: whether numbers that JSON has not, or only some readers take, become texts.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, str):
        return encodable(str.__str__(value))
    if isinstance(value, int):
        return int(value) if not numbers or abs(value) < _LARGEST else f"{int(value):#x}"
    if isinstance(value, float):
        return float(value) if not numbers or math.isfinite(value) else str(float(value))
    if isinstance(value, dict):
        return {clean(key): clean(inner, numbers=numbers) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        inside = [clean(inner, numbers=numbers) for inner in value]
        return tuple(inside) if isinstance(value, tuple) else inside
    if isinstance(value, set | frozenset):
        return kind(value) if kind in {set, frozenset} else set(value)
    number = getattr(value, "item", None)
    try:
        found = number() if callable(number) else None
    except Exception:  # noqa: BLE001  # of a tensor with more than one element, or whatever has that name
        found = None
    return clean(found, numbers=numbers) if type(found) in {bool, int, float} else encodable(printed(value))
