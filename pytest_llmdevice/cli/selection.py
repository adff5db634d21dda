"""Writes short `--llm-cell` expressions that select exactly some cells of a matrix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final, TypeAlias

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.select import value_of

Box: TypeAlias = dict[str, tuple[str, ...]]
"""Key -> values: the set of cells that have, for every key, one of its values."""

_KEYS: Final = ("kind", "model", "quantization", "dtype", "strategy", "device", "attention")
"""The keys of boxes. Ids are left out, because a simulated cell has another id."""


def expressions(chosen: Iterable[Cell], cells: Iterable[Cell]) -> list[str]:
    """Expressions that match the cells in `chosen`, each by one of them, and no other cell in `cells`.

    Raises:
        ConfigurationError: two models have names that an expression cannot distinguish.
    """
    wanted = set(chosen)
    kinds = {cell.kind for cell in wanted}
    # The cells of a job have one kind of hardware: name it once, and ignore cells of other kinds.
    fixed: Box = {"kind": tuple(kinds)} if len(kinds) == 1 else {}
    concerned = [cell for cell in cells if not fixed or cell.kind in kinds]
    _refuse_alike({cell.model for cell in concerned})
    return [_format_expression(box) for box in _merged(_boxes(concerned, wanted, fixed))]


def _refuse_alike(models: set[str]) -> None:
    for model in models:
        pattern = _pattern(model)
        if "?" not in pattern:
            continue
        other = next((name for name in models if name != model and fnmatchcase(name, pattern)), None)
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
    # Split by the axis that leaves the fewest cells undecided.
    key = min((key for key, values in by_key.items() if len(values) > 1), key=lambda key: _mixed(by_key[key], wanted))
    whole = tuple(value for value, group in by_key[key].items() if wanted.issuperset(group))
    boxes = [{**fixed, key: whole}] if whole else []
    for value, group in by_key[key].items():
        if value not in whole:
            boxes += _boxes(group, wanted, {**fixed, key: (value,)})
    return boxes


def _by_value(cells: Iterable[Cell], key: str) -> dict[str, list[Cell]]:
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(value_of(cell, key), []).append(cell)
    return groups


def _mixed(values: Mapping[str, Sequence[Cell]], wanted: set[Cell]) -> tuple[int, int]:
    inside = {value: sum(cell in wanted for cell in group) for value, group in values.items()}
    mixed = [value for value, count in inside.items() if 0 < count < len(values[value])]
    return sum(len(values[value]) for value in mixed), len(mixed)


def _merged(boxes: list[Box]) -> list[Box]:
    """Merge boxes that differ in the values of one key only."""
    for key in _KEYS:
        groups: dict[tuple[tuple[str, tuple[str, ...]], ...], Box] = {}
        for box in boxes:
            rest = tuple(sorted((other, values) for other, values in box.items() if other != key))
            # A box without the key matches all of its values already.
            group = (*rest, ("", (key,) if key in box else ()))
            if group in groups:
                values = groups[group][key] + box[key]
                groups[group] = {**groups[group], key: tuple(sorted(values))}
            else:
                groups[group] = box
        boxes = list(groups.values())
    return boxes


def _format_expression(box: Box) -> str:
    parts = (f"{key}={'|'.join(map(_pattern, values))}" for key, values in sorted(box.items(), key=_key_order))
    return ",".join(parts) or "id=*"


def _key_order(item: tuple[str, tuple[str, ...]]) -> int:
    return _KEYS.index(item[0])


def _pattern(value: str) -> str:
    """Write `value` as a pattern: wildcards are escaped; characters at which an expression would split become `?`."""
    return re.sub(r"[\s,|]", "?", re.sub(r"([*?[])", r"[\1]", value))
