"""Reads a size of memory as a person writes it."""

from __future__ import annotations

import re
from typing import Final

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.suggest import unknown

UNITS: Final = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
"""Bytes per unit; the units of ten are the vendors', those of two PyTorch's."""


def parse_memory(text: str) -> int:
    """`"8GiB"`, `"16 GB"`, `"1.5GiB"` as bytes.

    Raises:
        ConfigurationError: no number, no unit, or an unknown one.
    """
    valid = f"(valid units: {', '.join(UNITS)})"
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", text.strip())
    if parts is None:
        raise ConfigurationError(f"memory size {text!r} is not a number with a unit, such as '8GiB' {valid}")
    factor = {name.lower(): size for name, size in UNITS.items()}.get(parts[2].lower())
    if factor is None:
        raise ConfigurationError(f"memory size {text!r}: {unknown('unit', parts[2], UNITS)}")
    return round(float(parts[1]) * factor)
