"""What the script of the HTML page works on: every cell with its checks, as compact JSON.

Texts, findings and evidence that many cells share are kept once, in a pool, and referred to by their index: a page of
5,000 cells and 100,000 checks is otherwise several times as large.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from pytest_llmdevice.matrix.vocabulary import ATTENTIONS, CHECKS, DTYPES, KINDS, MODELS, QUANTIZATIONS, STRATEGIES
from pytest_llmdevice.report.page_causes import causes_of
from pytest_llmdevice.results.merged_results import CellView, Conflict, MergedResults, Sample, base_id
from pytest_llmdevice.results.records import CellDone, Memory, Run
from pytest_llmdevice.results.transitions import NAMES, Comparison
from pytest_llmdevice.results.vocabulary import WORST_FIRST, Outcome

LETTERS: Final[dict[Outcome, str]] = {
    "passed": "P",
    "failed": "F",
    "error": "E",
    "aborted": "A",
    "hollow": "H",
    "xpass": "X",
    "xfail": "x",
    "skipped": "s",
}
"""Pytest's own where it has one."""

FIELDS: Final = (
    "id",
    "target",
    "model",
    "device",
    "dtype",
    "quantization",
    "strategy",
    "attention",
    "simulated",
    "outcome",
    "load",
    "first",
    "speed",
    "memory",
    "causes",
    "checks",
    "more",
)
"""The parts of a cell, in their order. Seconds, tokens per second, bytes; `more` is only looked at in its panel."""

AXES: Final = ("target", "model", "device", "dtype", "quantization", "strategy", "attention")

_KNOWN: Final[dict[str, Sequence[str]]] = {
    "model": MODELS,
    "device": KINDS,
    "dtype": DTYPES,
    "quantization": QUANTIZATIONS,
    "strategy": STRATEGIES,
    "attention": ATTENTIONS,
}

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


def page_data(merged: MergedResults, comparison: Comparison | None) -> dict[str, Any]:
    """Everything that the script shows, ready for `script_json`."""
    pool = Pool()
    runs = {run.run: place for place, run in enumerate(merged.runs)}
    axes = {axis: _ordered(axis, (_value(view, axis) for view in merged.cells.values())) for axis in AXES}
    places = {axis: {value: place for place, value in enumerate(values)} for axis, values in axes.items()}
    checks = {name: place for place, name in enumerate(_checks(merged))}
    conflicts = _conflicts(merged.conflicts)
    cells = [
        [
            view.id,
            *(places[axis][_value(view, axis)] for axis in AXES),
            int(view.cell.simulated),
            WORST_FIRST.index(view.outcome),
            *_measures(view.last),
            [pool.add(cause.key) for cause in causes_of(view)],
            [_check(name, checks, sample, pool) for name, sample in view.checks.items()],
            _more(view, runs, pool, conflicts),
        ]
        for view in merged.cells.values()
    ]
    return {
        "outcomes": WORST_FIRST,
        "letters": [LETTERS[outcome] for outcome in WORST_FIRST],
        "axes": axes,
        "checks": list(checks),
        "runs": [_run(run) for run in merged.runs],
        "fields": FIELDS,
        "cells": cells,
        "pool": pool.values,
        "comparison": None if comparison is None else _comparison(comparison, merged),
    }


def script_json(data: Any) -> str:
    """`data` as JSON that is safe inside a `<script>`: nothing in it can end the element or start another."""
    text = json.dumps(_finite(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def peak(record: CellDone) -> int | None:
    """Bytes that loading and generating held at most, over what was held before the load.

    That of the cards, where the cell used one; that of the host otherwise. None where nothing was measured.
    """
    moments: dict[str, list[Memory]] = defaultdict(list)
    for memory in (*record.load_memory, *record.generate_memory):
        moments[memory.place].append(memory)
    grown = {place: max(each.peak for each in found) - found[0].before for place, found in moments.items()}
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
    known = {value: place for place, value in enumerate(_KNOWN.get(axis, ()))}

    def place(value: str) -> tuple[int, int]:
        kind, _, index = value.partition(":") if axis == "device" else (value, "", "")
        return known.get(kind, len(known)), int(index) if index.isdecimal() else 0

    return sorted(dict.fromkeys(values), key=place)


def _checks(merged: MergedResults) -> list[str]:
    found = dict.fromkeys(name for view in merged.cells.values() for name in view.checks)
    return [name for name in CHECKS if name in found] + [name for name in found if name not in CHECKS]


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
    told = [
        pool.add(check.message),
        pool.add([list(finding.model_dump().values()) for finding in check.findings]),
        pool.add(check.failure or check.cause or ""),
    ]
    return [
        places[name],
        WORST_FIRST.index(check.outcome),
        _rounded(check.seconds),
        pool.add(check.evidence),
        *(told if check.message or check.findings or check.failure or check.cause else ()),
    ]


def _more(
    view: CellView, runs: dict[str, int], pool: Pool, conflicts: dict[tuple[str, str], list[Any]]
) -> dict[str, Any]:
    environment, last = view.environment, view.last
    found = {
        "run": runs[view.run.run],
        "environment": pool.add([environment.hardware, environment.simulated_on, dict(environment.versions)]),
        "planned": pool.add(
            [[runs[run.run], each.verdict, each.cause or "", each.reason] for run, each in view.planned]
        ),
        "aborted": [runs[run.run] for run in view.aborted],
        "conflicts": conflicts.get((view.target, base_id(view.id)), []),
    }
    if last is not None:
        found |= {
            "seconds": _rounded(last.seconds),
            "devices": pool.add(last.devices),
            "loadMemory": pool.add([list(each.model_dump().values()) for each in last.load_memory]),
            "generateMemory": pool.add([list(each.model_dump().values()) for each in last.generate_memory]),
            "tokens": pool.add([list(row) for row in last.tokens]),
        }
    return {key: value for key, value in found.items() if value != []}


def _conflicts(conflicts: Iterable[Conflict]) -> dict[tuple[str, str], list[Any]]:
    found: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for conflict in conflicts:
        target = conflict.samples[0].check.target if conflict.samples else ""
        found[target, base_id(conflict.cell)].append([conflict.check, conflict.why, list(told(conflict))])
    return found


def told(conflict: Conflict) -> Iterable[list[str]]:
    """For each sample of `conflict`: outcome, machine, commit, start."""
    for sample in conflict.samples:
        yield [sample.check.outcome, machine(sample.run), commit(sample.run), when(sample.run.started)]


def _run(run: Run) -> dict[str, Any]:
    return {"run": run.run, "machine": machine(run), "commit": commit(run), "started": when(run.started)}


def machine(run: Run) -> str:
    """The hardware of `run`, the cards first."""
    cards = dict.fromkeys(device.name or device.spec for device in run.machine.devices if device.spec != "cpu")
    return ", ".join([*cards, run.machine.cpu or run.machine.architecture or "unknown processor"])


def commit(run: Run) -> str:
    """The commit, short, and whether the tree had changes; empty where there is no repository."""
    if run.commit is None:
        return ""
    return f"{run.commit.id[:10]}{' with changes' if run.commit.dirty else ''}"


def when(moment: str) -> str:
    """ISO 8601, as people write it; the text as it is where it's something else."""
    from datetime import UTC, datetime

    try:
        parsed = datetime.fromisoformat(moment)
    except ValueError:
        return moment
    return f"{parsed.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if parsed.tzinfo else moment


def _comparison(comparison: Comparison, merged: MergedResults) -> dict[str, Any]:
    places = {key: place for place, key in enumerate(merged.cells)}
    counts = comparison.counts
    return {
        "names": [name for name in NAMES if counts[name]],
        "transitions": [
            [
                each.name,
                places.get((each.target, base_id(each.cell)), -1),
                each.cell,
                each.target,
                each.check,
                each.before,
                each.after,
                each.detail,
            ]
            for each in comparison.transitions
        ],
    }


def _finite(data: Any) -> Any:
    """`data`, with what JSON has no number for as text."""
    if isinstance(data, float):
        return data if math.isfinite(data) else str(data)
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return data
