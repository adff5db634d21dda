"""Expands a matrix to its cells, the same ones on every machine that has the same cards."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Final, TypeAlias

from pydantic import ValidationError

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix import own_cards, own_quantizations
from pytest_llmdevice.matrix.axis_values import AxisValues
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.coverage import Point, pairwise
from pytest_llmdevice.matrix.files import locate, read
from pytest_llmdevice.matrix.problems import describe
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.matrix.schema import Matrix
from pytest_llmdevice.matrix.variations import varied

Expander: TypeAlias = Callable[[Sequence[str]], Sequence[tuple[str, str]]]
"""Turns device specs (`cuda:*`) into (kind, device) pairs, knowing which cards are present."""

MOST_FILES: Final = 50
"""That extend each other."""

MOST_CELLS: Final = 100_000
"""In the product of the axes: more would not run in a year."""

MOST_COVERED: Final = 20_000
"""In the product that a covering array is taken of, which takes a minute with as many."""

MOST_MATCHES: Final = 10_000_000
"""Cells by rules about them."""


def load(name: str, base: Path) -> Matrix:
    """Read and validate a matrix, by the name of a shipped one or by a path relative to `base`.

    Raises:
        ConfigurationError: every problem of the file in one message, each with its key.
    """
    return _load(name, base, ())[0]


def _load(name: str, base: Path, inside: tuple[Path, ...]) -> tuple[Matrix, dict[str, object]]:
    try:
        path = locate(name, base)
    except ConfigurationError as error:
        if not inside:
            raise
        problem = f"extends: {error}"
        raise ConfigurationError(f"matrix {inside[-1]}: {problem}", [problem]) from None
    # Resolved, because `extends = "../here/this.toml"` spells the same file in another way each time.
    link = path.resolve()
    if len(inside) >= MOST_FILES:
        problem = f"extends: more than {MOST_FILES} files, one after the other"
        raise ConfigurationError(f"matrix {inside[0]}: {problem}", [problem])
    if link in inside:
        chain = " -> ".join(map(str, (*inside, link)))
        problem = f"extends: goes round in a circle: {chain}"
        raise ConfigurationError(f"matrix {inside[0]}: {problem}", [problem])
    table = own = read(path)
    parent = table.get("extends")
    if isinstance(parent, str):
        _, inherited = _load(parent, path.parent, (*inside, link))
        table = _extended(table, inherited)
    try:
        # Before the axes are looked at, which may name them; with the functions of the file that describes them.
        own_quantizations.register_table(link, own, current())
        own_cards.register_table(link, own, current())
        return Matrix.model_validate(table), table
    except ValidationError as error:
        lines = describe(error, Matrix)
        text = lines[0] if len(lines) == 1 else "\n  ".join(["", *lines])
        raise ConfigurationError(f"matrix {path}: {text}", lines) from None


def _extended(table: dict[str, object], inherited: dict[str, object]) -> dict[str, object]:
    """`table` over `inherited`. Lists of tables add up, the file's own first: there the first that fits wins."""
    merged = {key: value for key, value in inherited.items() if key not in {"require", "description"}} | table
    for key in ("exclude", "include", "vary", "expect", "quantizations", "mixed", "cards"):
        own, other = table.get(key, []), inherited.get(key, [])
        # Anything but a list is left for the validation to report.
        if isinstance(own, list) and isinstance(other, list):
            merged[key] = [*own, *other]
    return merged


def cells(matrix: Matrix, expand: Expander) -> tuple[Cell, ...]:
    """The cells of `matrix`, ordered by its axes.

    `coverage = "pairwise"` is taken within each kind of device, so that every pair of the other axes runs on
    each kind and not merely on one that this machine may lack.

    Raises:
        ConfigurationError: the product is empty, or two cells have the same id.
    """
    product_cells = _product(matrix, matrix, expand)
    allowed = [cell for cell in product_cells if not any(rule.matches(cell) for rule in matrix.exclude)]
    included: list[Cell] = []
    for rule in matrix.include:
        included += _product(rule, matrix, expand)
        _refuse_many(len(included), matrix)
    if not allowed and not included:
        raise ConfigurationError(
            f"the matrix is empty: [[exclude]] removes all {len(product_cells)} cells of the product"
        )
    # A matrix in full has each cell of its product; variations are then named as models.
    chosen = varied(_pairwise(allowed, included), matrix.vary) if matrix.coverage == "pairwise" else allowed
    result = tuple(dict.fromkeys([*chosen, *included]))
    _refuse_equal_ids(result)
    return result


def _product(values: AxisValues, defaults: Matrix, expand: Expander) -> list[Cell]:
    def axis(key: str) -> tuple[str, ...]:
        given: tuple[str, ...] | None = getattr(values, key)
        return getattr(defaults, key) if given is None else given

    axes = (
        axis("models"),
        expand(axis("devices")),
        axis("dtypes"),
        axis("quantization"),
        axis("strategies"),
        axis("attention"),
    )
    _refuse_many(math.prod(map(len, axes)), defaults)
    return [
        Cell(model, device, dtype, quantization, strategy, attention, kind=kind)
        for model, (kind, device), dtype, quantization, strategy, attention in product(*axes)
    ]


def _refuse_many(count: int, matrix: Matrix) -> None:
    most = MOST_COVERED if matrix.coverage == "pairwise" else MOST_CELLS
    if count > most:
        raise ConfigurationError(
            f"the product of the axes has {count:,} cells, and a matrix with {matrix.coverage} coverage {most:,} at "
            "most: name fewer values, or make several matrices of it"
        )
    rules = len(matrix.exclude) + len(matrix.expect) + len(matrix.include) + sum(len(rule.by) for rule in matrix.vary)
    if count * rules > MOST_MATCHES:
        raise ConfigurationError(
            f"the matrix has {count:,} cells and {rules:,} rules about them: name fewer values or rules"
        )


def _pairwise(allowed: Sequence[Cell], included: Sequence[Cell]) -> list[Cell]:
    chosen: set[Cell] = set()
    for kind in dict.fromkeys(cell.kind for cell in allowed):
        points = {_point(cell): cell for cell in allowed if cell.kind == kind}
        already = tuple(_point(cell) for cell in included if cell.kind == kind)
        chosen.update(points[point] for point in pairwise(tuple(points), already))
    return [cell for cell in allowed if cell in chosen]


def _point(cell: Cell) -> Point:
    # By index: one card of each of three kinds is then one and the same question, answered once.
    return (cell.model, str(cell.index), cell.dtype, cell.quantization, cell.strategy, cell.attention)


def _refuse_equal_ids(cells: Sequence[Cell]) -> None:
    by_id: dict[str, Cell] = {}
    for cell in cells:
        other = by_id.setdefault(cell.id, cell)
        if other != cell:
            raise ConfigurationError(
                f"two cells of the matrix have the id {cell.id!r}: models {other.model!r} and {cell.model!r} "
                "differ only in characters that an id cannot hold; rename one"
            )
