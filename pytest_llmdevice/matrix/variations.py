"""Has variations of models take the place of some cells, as `[[vary]]` says: no cell is added for them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.model_names import parts_of

if TYPE_CHECKING:
    from pytest_llmdevice.matrix.schema import Vary


def varied(cells: Sequence[Cell], rules: Sequence[Vary]) -> list[Cell]:
    """The `cells`, as many and in their order, where on each kind of device each variation has taken one's place.

    Which one depends on the name of the variation and of the cell, and on nothing else, unless an earlier variation
    has it: so those of other variations stay where they are when one is added behind them.
    """
    chosen: dict[Cell, Cell] = {}
    for kind in dict.fromkeys(cell.kind for cell in cells):
        own = [cell for cell in cells if cell.kind == kind]
        for rule in rules:
            for model in rule.by:
                free = [cell for cell in own if cell not in chosen and _may_be(cell, model, rule)]
                if free:
                    place = min(free, key=lambda cell, model=model: _rank(model, cell))  # type: ignore[misc]
                    chosen[place] = replace(place, model=model, dtype=rule.dtype or place.dtype)
    return [chosen.get(cell, cell) for cell in cells]


def _may_be(cell: Cell, model: str, rule: Vary) -> bool:
    if rule.models is None and parts_of(model).base != cell.model:
        return False
    return rule.matches(cell)


def _rank(model: str, cell: Cell) -> str:
    # Not the kind: the same cell of another kind then has the same variation, and one set of references does.
    axes = (model, cell.model, str(cell.index), cell.dtype, cell.quantization, cell.strategy, cell.attention)
    return hashlib.sha256("|".join(axes).encode()).hexdigest()
