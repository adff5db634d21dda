"""Reads what `--llm-grid` asks for: which axes of the matrix are rows of the grid, and which are columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.cell import AXES, Cell
from pytest_llmdevice.matrix.suggest import unknown
from pytest_llmdevice.matrix.vocabulary import SHORT_DTYPES
from pytest_llmdevice.report.texts import printable


@cache
def _shown(name: str) -> str:
    return printable(name, 80)


_READ: Final[dict[str, Callable[[Cell], str]]] = {
    "model": lambda cell: _shown(cell.model),
    "device": lambda cell: cell.spec,
    "dtype": lambda cell: SHORT_DTYPES.get(cell.dtype, _shown(cell.dtype)),
    "quantization": lambda cell: _shown(cell.quantization),
    "strategy": lambda cell: _shown(cell.strategy),
    "attention": lambda cell: _shown(cell.attention),
}
assert set(_READ) == set(AXES)


def value(cell: Cell, axis: str) -> str:
    """The value of `cell` on `axis` as a grid writes it: `"cuda:0"`, `"bf16"`."""
    return _READ[axis](cell)


@dataclass(frozen=True, slots=True)
class Spec:
    """The axes of a grid, the outermost first. One that is in neither is summarized: the worst outcome is shown.

    Attributes:
        rows: at least one axis.
        columns: at least one axis.
        asked: whether the user asked for it; then nothing is folded.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    asked: bool = False

    @property
    def summarized(self) -> tuple[str, ...]:
        """The axes that are neither rows nor columns."""
        return tuple(axis for axis in AXES if axis not in {*self.rows, *self.columns})

    def __str__(self) -> str:
        return f"{','.join(self.rows)}/{','.join(self.columns)}"


DEFAULT: Final = Spec(("model", "strategy", "attention"), ("device", "dtype", "quantization"))


def parse_grid(text: str) -> Spec:
    """The grid that `text` asks for: rows, a slash, columns (`"model,strategy/device,dtype,quantization"`).

    Raises:
        ConfigurationError: it is not of that form, or an axis is unknown or there twice.
    """
    shown = repr(printable(text, 80))
    sides = [[axis.strip() for axis in side.split(",") if axis.strip()] for side in text.split("/")]
    if len(sides) != 2 or not all(sides):
        raise ConfigurationError(
            f"grid {shown}: name the axes of the rows, a slash, and those of the columns, as in '{DEFAULT}'"
        )
    given = [axis for side in sides for axis in side]
    for axis in given:
        if axis not in AXES:
            raise ConfigurationError(f"grid {shown}: {unknown('axis', printable(axis, 80), AXES)}")
        if given.count(axis) > 1:
            raise ConfigurationError(f"grid {shown}: the axis {axis!r} is there twice; name it once")
    rows, columns = sides
    return Spec(tuple(rows), tuple(columns), asked=True)
