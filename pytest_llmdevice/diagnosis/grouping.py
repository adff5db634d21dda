"""Findings of many checks and cells, sorted by what caused them: one bug reads as one bug."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from pytest_llmdevice.diagnosis.failure import NO_EXCEPTION
from pytest_llmdevice.diagnosis.finding import Finding, Hint
from pytest_llmdevice.diagnosis.folding import starred


@dataclass(frozen=True, slots=True)
class Seen:
    """A finding, and where it was made.

    Attributes:
        cell: the id of the cell.
        check: the check that made it.
        finding: the finding.
        simulated: whether the cell is a simulated one.
    """

    cell: str
    check: str
    finding: Finding
    simulated: bool = False


@dataclass
class Cause:
    """Findings that are taken for one bug.

    Attributes:
        example: the first of them.
        cells: the ids of the cells, in order of appearance, and whether each is simulated.
        checks: the checks, in order of appearance.
        findings: how many they are.
    """

    example: Seen
    cells: dict[str, bool] = field(default_factory=dict)
    checks: dict[str, None] = field(default_factory=dict)
    findings: int = 0

    @property
    def hint(self) -> Hint | None:
        """What is known of it."""
        return self.example.finding.hint

    def add(self, seen: Seen) -> None:
        """Take in one more finding."""
        self.cells[seen.cell] = seen.simulated
        self.checks[seen.check] = None
        self.findings += 1

    def counted(self) -> str:
        """`"3 cells (2 simulated)"`."""
        count, simulated = len(self.cells), sum(self.cells.values())
        pretended = "" if simulated in {0, count} else f" ({simulated} simulated)"
        kind = "simulated " if simulated == count else ""
        return f"{count} {kind}{'cell' if count == 1 else 'cells'}{pretended}"

    def described(self) -> str:
        """`"dtypes and forward: lm_head.weight: expected bfloat16, found float32 (the first cell)"`."""
        finding = self.example.finding
        return (
            f"{_joined(list(self.checks))}: {finding.where}: expected {finding.expected}, found {finding.actual} "
            f"({self.example.cell})"
        )


def listed(found: Iterable[Cause]) -> list[str]:
    """A line for each cause, numbered from 1; one that is seen in the very cells of an earlier one refers to it."""
    lines: list[str] = []
    first: dict[frozenset[str], int] = {}
    for number, cause in enumerate(found, start=1):
        same = first.setdefault(frozenset(cause.cells), number)
        cells = cause.counted() if same == number else f"the {'cell' if len(cause.cells) == 1 else 'cells'} of {same}"
        lines.append(f"{number}. {cells}, {cause.described()}")
    return lines


def causes(seen: Iterable[Seen]) -> list[Cause]:
    """`seen` by cause, those of most cells first; among equals the one that was seen first."""
    found: dict[object, Cause] = {}
    for each in seen:
        found.setdefault(_key(each), Cause(each)).add(each)
    return sorted(found.values(), key=lambda cause: -len(cause.cells))


def _key(seen: Seen) -> object:
    finding = seen.finding
    if finding.hint is not None:
        return finding.hint.name
    expected, actual = normalized(finding.expected), normalized(finding.actual)
    if expected in {NO_EXCEPTION, "a model"}:
        # One error that is met in many places is one bug.
        return expected, actual
    return seen.check, normalized(starred(finding.where)), expected, actual


_NORMAL: Final = (
    (re.compile(r"0x[0-9a-fA-F]+"), "0x#"),
    (re.compile(r"(?<![\w:])(/[\w.+~-]+){2,}"), "a path"),
    # Not within a word: `float16` and `int8` are no quantities.
    (re.compile(r"(?<![\w.])-?\d+(\.\d+)?(e[+-]?\d+)?(?![A-Za-z_])"), "#"),
    (re.compile(r"\[[^\[\]]*\]"), "[...]"),
)


def normalized(text: str) -> str:
    """`text` without what differs from cell to cell: quantities, addresses, paths and lists of tokens."""
    for pattern, replacement in _NORMAL:
        text = pattern.sub(replacement, text)
    return text


def _joined(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
