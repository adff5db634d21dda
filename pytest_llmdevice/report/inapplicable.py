"""Groups the checks that are about what a model has not, by the reason, and says it in a sentence for each group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from pytest_llmdevice.results.cell_view import CellView
from pytest_llmdevice.text import listed, plural

TITLE: Final = "Does not apply"
"""Above the checks that were not made, because they are about what the model has not."""


@dataclass
class Inapplicable:
    """Checks that could not be made of some cells that ran, for one reason.

    Attributes:
        reason: what the model has not.
        checks: their names, each once.
        cells: the cells, in the order of the matrix.
    """

    reason: str
    checks: dict[str, None] = field(default_factory=dict)
    cells: list[CellView] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{plural(len(self.cells), 'cell')}: {listed(self.checks)}: {self.reason}"


def group_inapplicable(views: Iterable[CellView]) -> list[Inapplicable]:
    """The checks that do not apply to cells that ran, in the order of the matrix."""
    groups: dict[str, Inapplicable] = {}
    for view in views:
        for name, sample in view.checks.items() if view.ran else ():
            if sample.check.cause == "does not apply":
                reason = sample.check.message.removeprefix("does not apply: ")
                group = groups.setdefault(reason, Inapplicable(reason))
                group.checks[name] = None
                if not group.cells or group.cells[-1] is not view:
                    group.cells.append(view)
    return list(groups.values())
