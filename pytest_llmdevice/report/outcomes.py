"""How the reports write an outcome: one letter, a few words and a colour, each telling simulated from real."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pytest_llmdevice.results.cell_view import CellView
from pytest_llmdevice.results.vocabulary import BAD, OUTCOME_WORDS, WORST_FIRST, Outcome

LETTERS: Final[dict[Outcome, str]] = {
    "error": "E",
    "failed": "F",
    "aborted": "A",
    "hollow": "H",
    "xpass": "X",
    "partial": "p",
    "xfail": "x",
    "upstream": "u",
    "passed": ".",
    "skipped": "s",
}
"""As pytest writes them, where it has a letter."""

SIMULATED: Final = "~"
"""After the letter of a cell that ran on a simulated device."""

_STYLES: Final[dict[Outcome, str]] = {
    "error": "bold red",
    "failed": "bold red",
    "aborted": "bold magenta",
    "hollow": "bold yellow",
    "xpass": "bold yellow",
    "partial": "yellow",
    "xfail": "yellow",
    "upstream": "yellow",
    "passed": "green",
    "skipped": "bright_black",
}


@dataclass(frozen=True, slots=True)
class Mark:
    """What became of a cell, and whether on a simulated device. A cell that did not run is neither."""

    outcome: Outcome
    simulated: bool = False

    @classmethod
    def of(cls, view: CellView) -> Mark:
        """The mark of a cell."""
        return cls(view.outcome, view.cell.simulated and view.ran)

    @property
    def letter(self) -> str:
        """`"F"`, or `"F~"` where it is simulated."""
        return LETTERS[self.outcome] + SIMULATED * self.simulated

    @property
    def words(self) -> str:
        """`"failed"`, or `"failed (simulated)"`."""
        return OUTCOME_WORDS[self.outcome] + " (simulated)" * self.simulated

    @property
    def style(self) -> str:
        """A style of rich. A simulated pass is not green."""
        return "cyan" if self.simulated and self.outcome == "passed" else _STYLES[self.outcome]

    @property
    def bad(self) -> bool:
        """Whether it makes a run red."""
        return self.outcome in BAD

    @property
    def rank(self) -> tuple[int, bool]:
        """Sorts the worst first: a simulated failure proves less than a real one, and so does a simulated pass."""
        return WORST_FIRST.index(self.outcome), self.simulated != (self.outcome == "passed")


MARKS: Final[tuple[Mark, ...]] = tuple(
    sorted(
        (Mark(outcome, simulated) for outcome in WORST_FIRST for simulated in (False, True)), key=lambda mark: mark.rank
    )
)
"""All marks, the worst first."""


@dataclass(frozen=True, slots=True)
class MarkCounts:
    """How many of some cells have each mark: of those at one place of a grid, or of all.

    Attributes:
        marks: each mark that occurs and how many cells have it, the worst first.
    """

    marks: tuple[tuple[Mark, int], ...]

    @classmethod
    def of(cls, marks: Iterable[tuple[Mark, int]]) -> MarkCounts:
        """Add up counted marks, each of which may come several times."""
        counts: dict[Mark, int] = {}
        for mark, count in marks:
            counts[mark] = counts.get(mark, 0) + count
        return cls(tuple(sorted(counts.items(), key=lambda counted: counted[0].rank)))

    @classmethod
    def of_cells(cls, views: Iterable[CellView]) -> MarkCounts:
        """Count the marks of `views`."""
        return cls.of((Mark.of(view), 1) for view in views)

    @property
    def worst(self) -> Mark:
        """The worst mark; there must be one."""
        return self.marks[0][0]

    @property
    def total(self) -> int:
        """How many cells there are."""
        return sum(count for _, count in self.marks)

    @property
    def mixed(self) -> bool:
        """Whether they differ."""
        return len(self.marks) > 1

    def count(self, outcomes: Iterable[Outcome], *, simulated: bool | None = None) -> int:
        """How many cells have one of `outcomes`; on real or simulated devices alone where `simulated` is given."""
        wanted = frozenset(outcomes)
        return sum(
            count
            for mark, count in self.marks
            if mark.outcome in wanted and (simulated is None or mark.simulated == simulated)
        )

    @property
    def fraction(self) -> str:
        """How many have the worst mark, `"1/3"`; empty where all have it."""
        return f"{self.marks[0][1]}/{self.total}" if self.mixed else ""

    @property
    def letters(self) -> str:
        """`"F"`, or `"F1/3"` where one of three cells has failed and the others have not."""
        return self.worst.letter + self.fraction

    @property
    def explanation(self) -> str:
        """`"F1/3: so in 1 of 3 cells"`."""
        return f"{self.letters}: so in {self.marks[0][1]} of {self.total} cells"

    @property
    def words(self) -> str:
        """`"3 failed, 88 passed, 370 not run; simulated: 120 passed"`; `"none"` where there are no cells."""
        real, simulated = (
            ", ".join(
                f"{count:,} {OUTCOME_WORDS[mark.outcome]}"
                for mark, count in self.marks
                if mark.simulated == on_simulated
            )
            for on_simulated in (False, True)
        )
        return "; ".join(part for part in (real, f"simulated: {simulated}" if simulated else "") if part) or "none"


def legend(places: Iterable[MarkCounts], blank: str = "") -> list[str]:
    """Explain the letters that a grid uses, the worst first.

    Args:
        places: what stands at each place of the grid.
        blank: what an empty place means; empty where there is none.
    """
    different = set(places)
    marks = {mark for place in different for mark, _ in place.marks}
    outcomes = {mark.outcome for mark in marks}
    parts = [f"{LETTERS[outcome]} {OUTCOME_WORDS[outcome]}" for outcome in WORST_FIRST if outcome in outcomes]
    parts += [f"{SIMULATED} simulated, not on real hardware"] if any(mark.simulated for mark in marks) else []
    mixed = min(
        (place for place in different if place.mixed), key=lambda place: (place.worst.rank, place.letters), default=None
    )
    parts += [mixed.explanation] if mixed is not None else []
    return [*parts, f"blank: {blank}"] if blank else parts
