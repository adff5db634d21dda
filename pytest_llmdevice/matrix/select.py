"""Selects cells: by the selectors of a matrix file, and by the expressions of `--llm-cell`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.cell import AXES, Cell
from pytest_llmdevice.matrix.suggest import unknown, unknown_name

KEYS: Final = (*AXES, "kind", "simulated", "id")
"""What a cell can be chosen by."""

EXPRESSION_HELP: Final = (
    "write KEY=PATTERN[|PATTERN][,KEY=PATTERN...], for example 'device=cuda:*,quantization=nf4|int8', "
    "or a cell id such as 'llama.cpu.bf16.none.to'"
)


@dataclass(frozen=True, slots=True)
class Selector:
    """Patterns per key; a cell matches when each key has a pattern that fits (shell wildcards)."""

    patterns: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def of(cls, patterns: Mapping[str, Sequence[str]]) -> Selector:
        """Build from a mapping of key to patterns; a key that is missing matches everything."""
        return cls(tuple((key, tuple(values)) for key, values in patterns.items()))

    def matches(self, cell: Cell) -> bool:
        """Whether `cell` fits every key."""
        return all(
            any(fnmatchcase(value_of(cell, key), pattern) for pattern in patterns) for key, patterns in self.patterns
        )


def value_of(cell: Cell, key: str) -> str:
    """What `key` of a cell is matched against; a device is matched as a matrix spells it, `rocm:0` for ROCm."""
    if key == "device":
        return cell.spec
    value = getattr(cell, key)
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse(expression: str) -> Selector:
    """Read one `--llm-cell` expression.

    Raises:
        ConfigurationError: an unknown key, or text that is neither an expression nor a cell id.
    """
    text = expression.strip()
    if "=" not in text:
        if "," in text or not text:
            raise ConfigurationError(f"--llm-cell {expression!r}: {EXPRESSION_HELP}")
        return Selector.of({"id": (text,)})
    patterns: dict[str, tuple[str, ...]] = {}
    for part in text.split(","):
        key, equals, values = (piece.strip() for piece in part.partition("="))
        if key not in KEYS:
            raise ConfigurationError(f"--llm-cell {expression!r}: {unknown('key', key, KEYS)}")
        alternatives = tuple(value.strip() for value in values.split("|") if value.strip())
        if not equals or not alternatives:
            raise ConfigurationError(f"--llm-cell {expression!r}: {key!r} has no value; {EXPRESSION_HELP}")
        if key in patterns:
            raise ConfigurationError(f"--llm-cell {expression!r}: {key!r} is given twice; join alternatives with '|'")
        patterns[key] = alternatives
    return Selector.of(patterns)


def parse_all(expressions: Iterable[str], cells: Sequence[Cell]) -> tuple[Selector, ...]:
    """Read the expressions and make sure that each one can match.

    Raises:
        ConfigurationError: an expression is malformed or fits no cell of `cells`; the message names the
            key that fits nothing and the values that the matrix has for it.
    """
    selectors = []
    for expression in expressions:
        selector = parse(expression)
        if not any(selector.matches(cell) for cell in cells):
            raise ConfigurationError(f"--llm-cell {expression!r} {_why_nothing(selector, cells)}")
        selectors.append(selector)
    return tuple(selectors)


def _why_nothing(selector: Selector, cells: Sequence[Cell]) -> str:
    for key, patterns in selector.patterns:
        if not any(Selector(((key, patterns),)).matches(cell) for cell in cells):
            values = list(dict.fromkeys(value_of(cell, key) for cell in cells))
            shown = [*values[:20], "..."] if len(values) > 20 else values
            hint = unknown_name(key, "|".join(patterns), values)
            return f"matches no cell of the matrix: {hint} (the matrix has: {', '.join(shown)})"
    return "matches no cell of the matrix: each part fits some cell, but no cell fits them all"
