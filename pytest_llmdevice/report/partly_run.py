"""Groups the cells that were partly run, by what is missing of them, and says it in a sentence for each group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pytest_llmdevice.results.cell_view import CellView
from pytest_llmdevice.text import listed, plural


@dataclass
class PartlyRun:
    """Cells of which the same is missing.

    Attributes:
        loaded: whether they had a model.
        lacking: the checks that the matrix requires and that did not run.
        cells: the cells, in the order of the matrix.
    """

    loaded: bool
    lacking: tuple[str, ...]
    cells: list[CellView] = field(default_factory=list)

    @property
    def missing(self) -> str:
        """`"not loaded, without 20 checks (loads, meta, placement and 17 more)"`."""
        parts = [] if self.loaded else ["not loaded"]
        if self.lacking:
            parts.append(f"without {plural(len(self.lacking), 'check')} ({listed(self.lacking)})")
        return ", ".join(parts)

    def __str__(self) -> str:
        return f"{plural(len(self.cells), 'cell')}: {self.missing}"


def group_partly_run(views: Iterable[CellView]) -> list[PartlyRun]:
    """The cells that were partly run, in the order of the matrix."""
    groups: dict[tuple[bool, tuple[str, ...]], PartlyRun] = {}
    for view in views:
        if view.outcome == "partial":
            key = view.loaded, view.lacking
            groups.setdefault(key, PartlyRun(*key)).cells.append(view)
    return list(groups.values())
