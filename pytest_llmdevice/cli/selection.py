"""Expressions of `--llm-cell` that choose exactly some cells of a matrix, as short as axes allow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final, TypeAlias

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.select import value_of

Box: TypeAlias = dict[str, tuple[str, ...]]
"""Key -> values: the cells that have one of the values of each key."""

_KEYS: Final = ("kind", "model", "quantization", "dtype", "strategy", "device", "attention")
"""What boxes are made of. No ids: a cell has another one where it is simulated."""


def expressions(chosen: Iterable[Cell], cells: Iterable[Cell]) -> list[str]:
    """Expressions that together fit `chosen` and no other one of `cells`, each cell being fitted by one of them.

    Raises:
        ConfigurationError: the name of a model is too much like that of another one to be told apart.
    """
    wanted = set(chosen)
    kinds = {cell.kind for cell in wanted}
    # All the same kind of hardware, as the cells of a job are: said once, and the others need not be looked at.
    fixed: Box = {"kind": tuple(kinds)} if len(kinds) == 1 else {}
    concerned = [cell for cell in cells if not fixed or cell.kind in kinds]
    _refuse_alike({cell.model for cell in concerned})
    return [_written(box) for box in _merged(_boxes(concerned, wanted, fixed))]


def _refuse_alike(models: set[str]) -> None:
    for model in models:
        pattern = _pattern(model)
        if "?" not in pattern:
            continue
        other = next((each for each in models if each != model and fnmatchcase(each, pattern)), None)
        if other is not None:
            raise ConfigurationError(
                f"models {model!r} and {other!r} differ only in blanks, commas or bars, which --llm-cell cannot tell "
                "apart: rename one"
            )


def _boxes(cells: list[Cell], wanted: set[Cell], fixed: Box) -> list[Box]:
    inside = sum(cell in wanted for cell in cells)
    if inside in {0, len(cells)}:
        return [fixed] if inside else []
    by_key = {key: _by_value(cells, key) for key in _KEYS if key not in fixed}
    # The axis that leaves the fewest cells undecided.
    key = min((key for key, values in by_key.items() if len(values) > 1), key=lambda key: _mixed(by_key[key], wanted))
    whole = tuple(value for value, found in by_key[key].items() if wanted.issuperset(found))
    boxes = [{**fixed, key: whole}] if whole else []
    for value, found in by_key[key].items():
        if value not in whole:
            boxes += _boxes(found, wanted, {**fixed, key: (value,)})
    return boxes


def _by_value(cells: Iterable[Cell], key: str) -> dict[str, list[Cell]]:
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(value_of(cell, key), []).append(cell)
    return found


def _mixed(values: Mapping[str, Sequence[Cell]], wanted: set[Cell]) -> tuple[int, int]:
    inside = {value: sum(cell in wanted for cell in found) for value, found in values.items()}
    mixed = [value for value, count in inside.items() if 0 < count < len(values[value])]
    return sum(len(values[value]) for value in mixed), len(mixed)


def _merged(boxes: list[Box]) -> list[Box]:
    """Boxes that differ in the values of one key only are one box."""
    for key in _KEYS:
        groups: dict[tuple[tuple[str, tuple[str, ...]], ...], Box] = {}
        for box in boxes:
            rest = tuple(sorted((other, values) for other, values in box.items() if other != key))
            # A box without the key takes all of its values, and cannot take more.
            group = (*rest, ("", (key,) if key in box else ()))
            if group in groups:
                values = groups[group][key] + box[key]
                groups[group] = {**groups[group], key: tuple(sorted(values))}
            else:
                groups[group] = box
        boxes = list(groups.values())
    return boxes


def _written(box: Box) -> str:
    parts = (f"{key}={'|'.join(map(_pattern, values))}" for key, values in sorted(box.items(), key=_place))
    return ",".join(parts) or "id=*"


def _place(item: tuple[str, tuple[str, ...]]) -> int:
    return _KEYS.index(item[0])


def _pattern(value: str) -> str:
    """`value` as a pattern: wildcards stand for themselves; what an expression or a shell would split is any sign."""
    return re.sub(r"[\s,|]", "?", re.sub(r"([*?[])", r"[\1]", value))
