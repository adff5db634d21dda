"""Groups the cells that no run came to, by device and cause, and says why in a sentence for each group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pytest_llmdevice.results.cell_view import CellView
from pytest_llmdevice.results.merged_results import MergedResults
from pytest_llmdevice.text import listed, plural

BY_THE_TEST: Final = "by the test"
"""The cause of a cell whose tests skipped themselves."""


def why_not(view: CellView) -> tuple[str, str]:
    """(cause, reason) of a cell that did not run anywhere; of several machines that which was closest to it."""
    cause = view.nearest_cause
    return cause, view.reasons[cause]


@dataclass
class NotRun:
    """Cells of one device that did not run, for one cause; of all devices where nobody asked for them.

    Attributes:
        cause: the cause.
        cells: the cells by their reason, in the order of the matrix.
    """

    cause: str
    cells: dict[str, list[CellView]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many cells there are."""
        return sum(map(len, self.cells.values()))

    @property
    def device(self) -> str:
        """The device as a matrix spells it; several are listed."""
        return listed(dict.fromkeys(view.cell.spec for views in self.cells.values() for view in views))

    @property
    def reason(self) -> str:
        """The reason of most of them, in a sentence that begins with the cause; and how many others there are."""
        most = max(self.cells, key=lambda reason: len(self.cells[reason]))
        others = f" (and {plural(len(self.cells) - 1, 'other reason')})" if len(self.cells) > 1 else ""
        return _with_cause(self.cause, most) + others

    def __str__(self) -> str:
        return f"{self.count:,} on {self.device}: {self.reason}"


def _with_cause(cause: str, reason: str) -> str:
    """`reason` as a sentence that begins with `cause`: a recorded decision does already, what a test says does not."""
    if not reason:
        return cause
    return f"{cause}: {reason}" if cause == BY_THE_TEST else reason


def group_not_run(results: MergedResults) -> list[NotRun]:
    """What did not run anywhere, by device and cause, in the order of the matrix."""
    groups: dict[tuple[str, str], NotRun] = {}
    for view in results.never_ran:
        cause, reason = why_not(view)
        # What the user left out has the same reason on all devices.
        key = (reason if cause == "not requested" else view.cell.spec, cause)
        groups.setdefault(key, NotRun(cause)).cells.setdefault(reason, []).append(view)
    return list(groups.values())
