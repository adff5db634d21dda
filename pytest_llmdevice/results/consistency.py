"""Says how a record contradicts what a file of results has before it: what nobody wrote in one piece is no evidence."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pytest_llmdevice.results.cell_view import worst_of
from pytest_llmdevice.results.records import CellDone, Check, End, Planned
from pytest_llmdevice.results.run_header import Record
from pytest_llmdevice.results.vocabulary import GOOD, OUTCOME_WORDS, WORST_FIRST, Outcome
from pytest_llmdevice.text import plural

if TYPE_CHECKING:
    from pytest_llmdevice.results.store import RunFile


def contradiction(file: RunFile, record: Record) -> str:
    """How `record` contradicts the records of `file`, which come before it, in words; empty where it does not."""
    if file.end is not None:
        return "the run is ended a second time" if isinstance(record, End) else "the run goes on after its end"
    match record:
        case Planned():
            return f"{record.cell} is planned a second time" if record.cell in file.planned else ""
        case Check():
            return _unplanned(file, record)
        case CellDone():
            again = f"{record.cell} is finished a second time" if record.cell in file.cells else ""
            return again or _unplanned(file, record) or _other_checks(file, record)
        case End():
            return _left_open(file)
    return ""


def incomplete_plan(file: RunFile) -> str:
    """What is missing of the cells that the first record says there are, in words; empty where nothing is."""
    said, there = file.run.matrix.cells, len(file.planned)
    # A matrix all of whose cells are excluded has none; older files do not say how many there are.
    if said == there or (not said and there):
        whole = bool(there) or file.end is not None
        return "" if whole else "no cell is planned in this file"
    return f"the matrix has {plural(said, 'cell')}, and {plural(there, 'is', 'are')} planned in this file"


def _unplanned(file: RunFile, record: Check | CellDone) -> str:
    planned = file.planned.get(record.cell)
    if planned is None:
        return f"{record.cell} is {record.outcome} and no line before it plans that cell"
    if planned.verdict == "skip" and record.outcome != "skipped":
        return f"{record.cell} is {record.outcome}, and was not to run: {planned.reason or planned.cause}"
    return ""


def _other_checks(file: RunFile, record: CellDone) -> str:
    """How a finished cell differs from its checks."""
    counts = file.counted.get(record.cell, Counter[Outcome]())
    # Of a cell that a run was gone in, what was under way may be recorded and is not counted.
    if record.outcome == "aborted":
        return ""
    if counts != Counter(record.checks):
        return (
            f"{record.cell} is {OUTCOME_WORDS[record.outcome]} with {_words(record.checks)}, and the lines before it "
            f"have {_words(counts)}"
        )
    worst = worst_of(set(counts))
    if record.outcome == "partial" and worst in GOOD:
        return ""
    if record.outcome != worst:
        return f"{record.cell} is {OUTCOME_WORDS[record.outcome]}, and its checks are {_words(counts)}"
    return ""


def _words(counts: dict[Outcome, int]) -> str:
    said = (f"{counts[outcome]} {OUTCOME_WORDS[outcome]}" for outcome in WORST_FIRST if counts.get(outcome))
    return ", ".join(said) or "no checks"


def _left_open(file: RunFile) -> str:
    open_cells = [
        planned.cell
        for planned in file.planned.values()
        if planned.verdict != "skip" and planned.cell not in file.cells
    ]
    return f"the run is ended, and {open_cells[0]}, which was to run, is not" if open_cells else ""
