"""How an outcome is written: a letter, words and a colour, which tell simulated from real each on its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pytest_llmdevice.results.merged_results import CellView
from pytest_llmdevice.results.vocabulary import BAD, WORST_FIRST, Outcome

LETTERS: Final[dict[Outcome, str]] = {
    "error": "E",
    "failed": "F",
    "aborted": "A",
    "hollow": "H",
    "xpass": "X",
    "xfail": "x",
    "passed": ".",
    "skipped": "s",
}
"""As pytest writes them, where it has a letter."""

WORDS: Final[dict[Outcome, str]] = {
    "error": "error",
    "failed": "failed",
    "aborted": "aborted",
    "hollow": "hollow",
    "xpass": "passed unexpectedly",
    "xfail": "failed as expected",
    "passed": "passed",
    "skipped": "not run",
}

SIMULATED: Final = "~"
"""After the letter of a cell that ran on a simulated device."""

_STYLES: Final[dict[Outcome, str]] = {
    "error": "bold red",
    "failed": "bold red",
    "aborted": "bold magenta",
    "hollow": "bold yellow",
    "xpass": "bold yellow",
    "xfail": "yellow",
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
        """Of a cell."""
        return cls(view.outcome, view.cell.simulated and view.ran)

    @property
    def letter(self) -> str:
        """`"F"`, or `"F~"` where it is simulated."""
        return LETTERS[self.outcome] + SIMULATED * self.simulated

    @property
    def words(self) -> str:
        """`"failed"`, or `"failed (simulated)"`."""
        return WORDS[self.outcome] + " (simulated)" * self.simulated

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


@dataclass(frozen=True, slots=True)
class Entry:
    """The cells that stand at one place of a grid: how many have each mark, the worst first."""

    marks: tuple[tuple[Mark, int], ...]

    @classmethod
    def of(cls, marks: Iterable[tuple[Mark, int]]) -> Entry:
        """Of counted marks, each of which may come several times."""
        counts: dict[Mark, int] = {}
        for mark, count in marks:
            counts[mark] = counts.get(mark, 0) + count
        return cls(tuple(sorted(counts.items(), key=lambda each: each[0].rank)))

    @property
    def worst(self) -> Mark:
        """The worst mark."""
        return self.marks[0][0]

    @property
    def total(self) -> int:
        """How many cells stand there."""
        return sum(count for _, count in self.marks)

    @property
    def mixed(self) -> bool:
        """Whether they differ."""
        return len(self.marks) > 1

    @property
    def counted(self) -> str:
        """How many have the worst mark, `"1/3"`; empty where all have it."""
        return f"{self.marks[0][1]}/{self.total}" if self.mixed else ""

    @property
    def letters(self) -> str:
        """`"F"`, or `"F1/3"` where one of three cells has failed and the others have not."""
        return self.worst.letter + self.counted

    @property
    def explained(self) -> str:
        """`"F1/3: so in 1 of 3 cells"`."""
        return f"{self.letters}: so in {self.marks[0][1]} of {self.total} cells"


def legend(entries: Iterable[Entry], blank: str = "") -> list[str]:
    """What the letters at `entries` mean, those that occur, the worst first; and what `blank` says of none."""
    found = set(entries)
    marks = {mark for entry in found for mark, _ in entry.marks}
    parts = [f"{LETTERS[outcome]} {WORDS[outcome]}" for outcome in WORST_FIRST if outcome in {m.outcome for m in marks}]
    parts += [f"{SIMULATED} simulated, not on real hardware"] if any(mark.simulated for mark in marks) else []
    mixed = min(
        (entry for entry in found if entry.mixed), key=lambda entry: (entry.worst.rank, entry.letters), default=None
    )
    parts += [mixed.explained] if mixed is not None else []
    return [*parts, f"blank: {blank}"] if blank else parts
