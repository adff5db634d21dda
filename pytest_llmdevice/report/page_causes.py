"""What went wrong, grouped by what caused it: the findings of all cells under each hint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

from pytest_llmdevice.results.merged_results import CellView, MergedResults
from pytest_llmdevice.results.records import Check, RecordedFinding
from pytest_llmdevice.results.vocabulary import BAD

Value = TypeVar("Value")

EXAMPLES: Final = 3
"""Findings that are quoted for each cause."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a cell is not in order.

    Attributes:
        key: the name of the hint; where none is known, the kind of failure and the check.
        advice: what usually causes it, and what to do; empty where no hint is known.
        source: an address to read on; may be empty, and is whatever a record says.
    """

    key: str
    advice: str = ""
    source: str = ""


@dataclass
class Group:
    """The cells that one cause is behind.

    Attributes:
        cause: the cause.
        cells: the cells, in the order of the matrix.
        count: findings in all of them.
        examples: some findings of it, each another one.
        messages: what checks say that have no findings, each another one.
    """

    cause: Cause
    cells: list[CellView] = field(default_factory=list)
    count: int = 0
    examples: list[RecordedFinding] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


def causes_of(view: CellView) -> list[Cause]:
    """Each cause of what is wrong with the cell, once."""
    return list({cause.key: cause for cause, _, _ in _traced(view)}.values())


def grouped(merged: MergedResults) -> list[Group]:
    """The causes, that with the most cells first."""
    found: dict[str, Group] = {}
    for view in merged.cells.values():
        for cause, finding, message in _traced(view):
            group = found.setdefault(cause.key, Group(cause))
            if not group.cells or group.cells[-1] is not view:
                group.cells.append(view)
            if finding is not None:
                group.count += 1
                _keep(group.examples, finding)
            elif message:
                _keep(group.messages, message)
    return sorted(found.values(), key=lambda group: -len(group.cells))


def _keep(kept: list[Value], value: Value) -> None:
    if len(kept) < EXAMPLES and value not in kept:
        kept.append(value)


def _traced(view: CellView) -> Iterator[tuple[Cause, RecordedFinding | None, str]]:
    if view.outcome not in BAD:
        return
    bad = [sample.check for sample in view.checks.values() if sample.check.outcome in BAD]
    for check in bad:
        for finding in check.findings:
            yield _cause(check, finding), finding, ""
        if not check.findings:
            yield Cause(_unknown(check)), None, check.message
    if not bad:
        last = view.last
        kind = last.failure if last is not None and last.failure else view.outcome
        yield Cause(f"{kind}, before a check was recorded"), None, ""


def _cause(check: Check, finding: RecordedFinding) -> Cause:
    if finding.hint:
        return Cause(finding.hint, finding.advice, finding.source)
    return Cause(_unknown(check))


def _unknown(check: Check) -> str:
    return f"{check.failure or check.outcome} in {check.check}"
