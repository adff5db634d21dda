"""Writes the answer of the gate in lines for a terminal or a log: what failed first, then all else, then notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from pytest_llmdevice.report.changes import Change, change_text, changes_of, differences_text, left_text
from pytest_llmdevice.report.model import ReportModel, conflict_text
from pytest_llmdevice.report.problems import Problem
from pytest_llmdevice.report.runs import target_text
from pytest_llmdevice.report.texts import printable
from pytest_llmdevice.results.cell_view import Conflict
from pytest_llmdevice.results.gate import GateResult, nothing_compared
from pytest_llmdevice.results.transitions import FAILING, NOT_RUN, Comparison, Name, Transition, count_text
from pytest_llmdevice.text import listed, plural

MOST_LINES: Final = 20
"""Problems, conflicts and transitions of one name that are listed; of more the rest is counted."""

MOST_CELLS: Final = 8
"""Cells of one change that are listed; all of its models are."""

_BY_DETAIL: Final = NOT_RUN | {"unused", "not-comparable"}
"""Names whose transitions have few causes and come by the thousand: one line for each cause."""


def gate_lines(gate_result: GateResult, report: ReportModel) -> Iterator[str]:
    """What the gate has to say.

    Args:
        gate_result: its answer.
        report: the results that it is about, with the comparison where there is a baseline.
    """
    comparison = report.comparison
    if gate_result.good:
        yield f"gate passed{': ' + differences_text(comparison) if comparison else ''}"
    else:
        yield f"gate failed: {'; '.join(gate_result.reasons)}"
    yield from (f"  {line}" for line in gate_result.missing)
    if target := target_text(report.results):
        yield printable(target)
    if comparison is None:
        yield from _problems(report)
    else:
        if nothing_compared(comparison):
            yield "nothing could be compared with the baseline: update it here, or keep one for each environment"
        yield from _transitions(comparison, gate_result, report.problems)
        if not gate_result.good:
            yield differences_text(comparison)
    yield from _conflicts(report.results.conflicts)
    partly = [f"partly run: {group}" for group in report.partly_run[:MOST_LINES]]
    notes = (*partly, *(comparison.notes if comparison else ()), *report.results.notes)
    yield from (f"note: {note}" for note in notes)


def _transitions(comparison: Comparison, gate_result: GateResult, problems: Sequence[Problem]) -> Iterator[str]:
    by_name: dict[Name, list[Transition]] = {}
    for transition in comparison.transitions:
        by_name.setdefault(transition.name, []).append(transition)
    # What is fixed, new or expected and no reason to fail needs no line for each.
    for same in sorted(by_name.values(), key=lambda transitions: not _fails(transitions, gate_result)):
        yield from _of_name(same, problems, fails=_fails(same, gate_result))


def _fails(same: Sequence[Transition], gate_result: GateResult) -> bool:
    """Whether transitions of one name are a reason to fail."""
    failing = FAILING in gate_result.failing and any(transition.failing for transition in same)
    return failing or same[0].name in gate_result.failing


def _of_name(same: Sequence[Transition], problems: Sequence[Problem], *, fails: bool) -> Iterator[str]:
    name = same[0].name
    yield f"{'FAIL ' if fails else ''}{count_text(name, len(same))}:"
    # Those that make a run red would be lost in a summary of causes.
    single = [transition for transition in same if name not in _BY_DETAIL or transition.failing]
    rest = [transition for transition in same if name in _BY_DETAIL and not transition.failing]
    changes = changes_of(single, problems)
    for change in changes[:MOST_LINES]:
        yield from _change(change)
    if changes[MOST_LINES:]:
        yield f"  ... {left_text(changes[MOST_LINES:])}"
    causes = Counter(transition.detail for transition in rest).most_common()
    for detail, count in causes[:MOST_LINES]:
        cells = {transition.cell for transition in rest if transition.detail == detail}
        yield f"  {count:,} in {_few(sorted(cells))}: {detail or 'no reason given'}"
    if len(causes) > MOST_LINES:
        yield f"  ... for {len(causes) - MOST_LINES:,} more causes"


def _change(change: Change) -> Iterator[str]:
    yield f"  {change_text(change)}"
    if change.elsewhere:
        yield f"    in {listed([change.first.cell, *change.elsewhere], MOST_CELLS)}"
    if change.follows:
        yield f"    follows from it: {', '.join(dict.fromkeys(transition.check for transition in change.follows))}"


def _few(cells: Sequence[str]) -> str:
    return cells[0] if len(cells) == 1 else f"{len(cells):,} cells ({cells[0]}, ...)"


def _problems(report: ReportModel) -> Iterator[str]:
    if report.problems:
        yield f"{report.problems_line(len(report.problems))}:"
    for number, problem in enumerate(report.problems[:MOST_LINES], start=1):
        yield f"  {number}. {printable(problem.title)}"
        yield f"     {printable(problem.description)}"
        if problem.follows:
            yield f"     follows from it: {printable(problem.followers)}"
        yield f"     in {printable(listed(map(report.cell_name, problem.cells)))}{_models([problem])}"
    if left := report.problems[MOST_LINES:]:
        yield f"  ... and {len(left):,} more{_models(left)}"


def _models(problems: Sequence[Problem]) -> str:
    """`", of gpt2 and llama"`, where there are several: of many cells a few are listed, of their models all."""
    models = sorted({view.cell.model for problem in problems for view in problem.cells})
    return f", of {printable(', '.join(models))}" if len(models) > 1 else ""


def _conflicts(conflicts: Sequence[Conflict]) -> Iterator[str]:
    if conflicts:
        yield f"{plural(len(conflicts), 'conflict')}, the worse outcome counts:"
    yield from (f"  {conflict_text(conflict)}" for conflict in conflicts[:MOST_LINES])
    yield from _more(len(conflicts))


def _more(count: int) -> Iterator[str]:
    if count > MOST_LINES:
        yield f"  ... and {count - MOST_LINES:,} more"
