"""Packs every cell with its checks as compact JSON, which the script of the HTML page draws from.

Texts, findings and evidence that many cells share are kept once, in a pool, and referred to by their index: a page of
5,000 cells and 100,000 checks is otherwise several times as large.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

from pytest_llmdevice.matrix.vocabulary import ATTENTIONS, DTYPES, checks, kinds, models, quantizations, strategies
from pytest_llmdevice.report.model import ReportModel
from pytest_llmdevice.report.outcomes import MARKS, Mark
from pytest_llmdevice.report.page_sections import PAGE_ORDER
from pytest_llmdevice.report.runs import commit_text, machine_text, time_text
from pytest_llmdevice.results.cell_view import CellView, Conflict, Sample, base_id
from pytest_llmdevice.results.merged_results import MergedResults
from pytest_llmdevice.results.records import CellDone, Memory, RecordedFinding
from pytest_llmdevice.results.run_header import Run
from pytest_llmdevice.results.transitions import NAMES, Comparison
from pytest_llmdevice.results.vocabulary import OUTCOME_WORDS, WORST_FIRST, outcome_text
from pytest_llmdevice.text import harmless

FIELDS: Final = (
    "id",
    "target",
    "model",
    "device",
    "dtype",
    "quantization",
    "strategy",
    "attention",
    "mark",
    "load",
    "first",
    "speed",
    "memory",
    "problems",
    "checks",
    "more",
)
"""The parts of a cell, in their order: its axes and mark by their place in a list, seconds, tokens per second, bytes,
the places of its problems; `more` is only looked at in its panel."""

AXES: Final = ("target", "model", "device", "dtype", "quantization", "strategy", "attention")


def _known(axis: str) -> tuple[str, ...]:
    """The values of `axis` that are known here, in their order."""
    match axis:
        case "model":
            return models()
        case "device":
            return kinds()
        case "dtype":
            return DTYPES
        case "quantization":
            return quantizations()
        case "strategy":
            return strategies()
        case "attention":
            return ATTENTIONS
    return ()


_DIGITS: Final = 5


class Pool:
    """Values of which many are equal, each kept once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def add(self, value: Any) -> int:
        """The index of `value`."""
        place = self._places.setdefault(repr(value), len(self.values))
        if place == len(self.values):
            self.values.append(value)
        return place


def page_data(report: ReportModel) -> dict[str, Any]:
    """Everything that the script shows of `report`, ready for `script_json`."""
    results, pool = report.results, Pool()
    runs = {run.run: place for place, run in enumerate(results.runs)}
    axes = {axis: _ordered(axis, (_value(view, axis) for view in results.cells.values())) for axis in AXES}
    places = {axis: {value: place for place, value in enumerate(values)} for axis, values in axes.items()}
    checks = {name: place for place, name in enumerate(_checks(results))}
    conflicts = _conflicts(results.conflicts)
    problems = _problems_of_cells(report)
    cells = [
        [
            view.id,
            *(places[axis][_value(view, axis)] for axis in AXES),
            MARKS.index(Mark.of(view)),
            *_measures(view.last),
            problems.get((view.target, view.id), []),
            [_check(name, checks, sample, pool) for name, sample in view.checks.items()],
            _more(view, runs, pool, conflicts),
        ]
        for view in results.cells.values()
    ]
    return {
        "outcomes": WORST_FIRST,
        "marks": [[mark.outcome, mark.simulated, mark.letter, mark.words] for mark in MARKS],
        "order": PAGE_ORDER,
        "axes": axes,
        "checks": list(checks),
        "runs": [_run(run) for run in results.runs],
        "fields": FIELDS,
        "cells": cells,
        "pool": pool.values,
        "problems": [problem.name for problem in report.problems],
        "comparison": None if report.comparison is None else _comparison(report.comparison, results),
    }


def _problems_of_cells(report: ReportModel) -> dict[tuple[str, str], list[int]]:
    """The places of the problems of each cell, by target and id."""
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, problem in enumerate(report.problems):
        for view in problem.cells:
            places[view.target, view.id].append(place)
    return places


def script_json(data: Any) -> str:
    """`data` as JSON that is safe inside a `<script>`: nothing in it can end the element or start another."""
    text = json.dumps(_shown(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def peak(record: CellDone) -> int | None:
    """Bytes that loading and generating held at most, over what was held before the load.

    That of the cards, where the cell used one; that of the host otherwise. None where nothing was measured.
    """
    moments: dict[str, list[Memory]] = defaultdict(list)
    for memory in (*record.load_memory, *record.generate_memory):
        moments[memory.place].append(memory)
    grown = {place: max(memory.peak for memory in stages) - stages[0].before for place, stages in moments.items()}
    cards = sum(bytes_ for place, bytes_ in grown.items() if place != "host")
    return cards if cards > 0 else max(grown["host"], 0) if "host" in grown else None


def _value(view: CellView, axis: str) -> str:
    if axis == "target":
        return view.target
    value = view.cell.spec if axis == "device" else getattr(view.cell, axis)
    assert isinstance(value, str)
    return value


def _ordered(axis: str, values: Iterable[str]) -> list[str]:
    """As the vocabulary has them, others behind in the order of their appearance."""
    known = {value: place for place, value in enumerate(_known(axis))}

    def place(value: str) -> tuple[int, int]:
        kind, _, index = value.partition(":") if axis == "device" else (value, "", "")
        return known.get(kind, len(known)), int(index) if index.isdecimal() else 0

    return sorted(dict.fromkeys(values), key=place)


def _checks(results: MergedResults) -> list[str]:
    names = dict.fromkeys(name for view in results.cells.values() for name in view.checks)
    known = checks()
    return [name for name in known if name in names] + [name for name in names if name not in known]


def _measures(last: CellDone | None) -> tuple[float | None, ...]:
    if last is None:
        return None, None, None, None
    return (
        _rounded(last.load_seconds),
        _rounded(last.first_token_seconds),
        _rounded(last.tokens_per_second),
        peak(last),
    )


def _rounded(value: float | None) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if value is not None and math.isfinite(value) else None


def _check(name: str, places: dict[str, int], sample: Sample, pool: Pool) -> list[Any]:
    """Name, outcome, seconds, evidence, and only where there is something to tell: message, findings, what kind."""
    check = sample.check
    details = [
        pool.add(check.message),
        pool.add([_finding(finding) for finding in check.findings]),
        pool.add(check.failure or check.cause or ""),
    ]
    return [
        places[name],
        WORST_FIRST.index(check.outcome),
        _rounded(check.seconds),
        pool.add(check.evidence),
        *(details if check.message or check.findings or check.failure or check.cause else ()),
    ]


def _finding(finding: RecordedFinding) -> list[str]:
    return [finding.where, finding.expected, finding.actual, finding.hint, finding.advice, finding.source]


def _more(
    view: CellView, runs: dict[str, int], pool: Pool, conflicts: dict[tuple[str, str], list[Any]]
) -> dict[str, Any]:
    environment, last = view.environment, view.last
    more = {
        "run": runs[view.run.run],
        "environment": pool.add([environment.hardware, environment.simulated_on, dict(environment.versions)]),
        "planned": pool.add(
            [[runs[run.run], planned.verdict, planned.cause or "", planned.reason] for run, planned in view.planned]
        ),
        "aborted": [runs[run.run] for run in view.aborted],
        "conflicts": conflicts.get((view.target, base_id(view.id)), []),
    }
    if last is not None:
        more |= {
            "seconds": _rounded(last.seconds),
            "devices": pool.add(last.devices),
            "loadMemory": pool.add([list(memory.model_dump().values()) for memory in last.load_memory]),
            "generateMemory": pool.add([list(memory.model_dump().values()) for memory in last.generate_memory]),
            "tokens": pool.add([list(row) for row in last.tokens]),
        }
    return {key: value for key, value in more.items() if value != []}


def _conflicts(conflicts: Iterable[Conflict]) -> dict[tuple[str, str], list[Any]]:
    by_cell: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for conflict in conflicts:
        target = conflict.samples[0].check.target if conflict.samples else ""
        by_cell[target, base_id(conflict.cell)].append([conflict.check, conflict.why, conflict_sides(conflict)])
    return by_cell


def conflict_sides(conflict: Conflict) -> list[list[str]]:
    """For each sample of `conflict`: outcome, outcome in words, machine, commit, start."""
    return [
        [
            sample.check.outcome,
            OUTCOME_WORDS[sample.check.outcome],
            machine_text(sample.run),
            commit_text(sample.run),
            time_text(sample.run.started),
        ]
        for sample in conflict.samples
    ]


def _run(run: Run) -> dict[str, Any]:
    return {
        "run": run.run,
        "machine": machine_text(run),
        "commit": commit_text(run),
        "started": time_text(run.started),
    }


def _comparison(comparison: Comparison, results: MergedResults) -> dict[str, Any]:
    places = {key: place for place, key in enumerate(results.cells)}
    counts = comparison.counts
    return {
        "names": [name for name in NAMES if counts[name]],
        "transitions": [
            [
                transition.name,
                places.get((transition.target, base_id(transition.cell)), -1),
                transition.cell,
                transition.target,
                transition.check,
                outcome_text(transition.before),
                outcome_text(transition.after),
                transition.detail,
            ]
            for transition in comparison.transitions
        ],
    }


def _shown(data: Any) -> Any:
    """`data` as the page may show it: texts are harmless, and what JSON has no number for is text."""
    if isinstance(data, str):
        return harmless(data, lines=True)
    if isinstance(data, float):
        return data if math.isfinite(data) else str(data)
    if isinstance(data, dict):
        return {_shown(key): _shown(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_shown(value) for value in data]
    return data
