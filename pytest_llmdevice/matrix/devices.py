"""Reads the name of a device as a matrix, `--llm-require` and a marker spell it."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.suggest import unknown
from pytest_llmdevice.matrix.vocabulary import indexed, kinds


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A device by name.

    Attributes:
        kind: the kind of device.
        index: its number; None where the name has none.
        every: whether the name stands for every device of the kind, as `cuda:*` does.
    """

    kind: str
    index: int | None = None
    every: bool = False


def spellings() -> tuple[str, ...]:
    """The forms that a name can have, for messages: `cpu`, `cuda`, `cuda:N`, `cuda:*`, ..."""
    return tuple(form for kind in kinds() for form in ((kind, f"{kind}:N", f"{kind}:*") if indexed(kind) else (kind,)))


def parse_device(spec: str) -> DeviceSpec:
    """Read `"cpu"`, `"cuda"`, `"cuda:1"` or `"cuda:*"`.

    There is one spelling of each: names are compared as text, and `cuda:01` would match no cell.

    Raises:
        ConfigurationError: there is no such kind, or the index is none.
    """
    kind, colon, index = spec.partition(":")
    if kind not in kinds():
        raise ConfigurationError(unknown("device", spec, spellings()))
    if not colon:
        return DeviceSpec(kind)
    if not indexed(kind):
        raise ConfigurationError(f"device {spec!r} cannot have an index; did you mean {kind!r}?")
    if index == "*":
        return DeviceSpec(kind, every=True)
    if not (index.isascii() and index.isdecimal() and str(int(index)) == index):
        raise ConfigurationError(
            f"device {spec!r} has the index {index!r} (valid: a number, or '*' for every card present)"
        )
    return DeviceSpec(kind, int(index))
