"""Results as one JSON document, for programs that ask what became of a cell.

The keys, which keep their meaning as long as `schema` does not count up:

- `schema`: 1.
- `counts`: cells by outcome, `{"real": {...}, "simulated": {...}}`. What did not run is `skipped`, and real.
- `runs`: the header of each run as in a file of results: `run`, `started`, `versions`, `machine`, `matrix`, `target`,
  `commit`, `command`, `shard`, `ci`, `simulated`, `plugin`.
- `cells`, in the order of the matrix, each with
  - `cell`, `target`, and the axes `model`, `device`, `dtype`, `quantization`, `strategy`, `attention`, `kind`;
  - `simulated`: whether it ran on a simulated device; `ran`: whether it ran at all; `outcome`: the worst of its checks;
  - `run`: the run that the cell was last seen in;
  - `not_run`: `{"cause", "reason"}` where it never ran, else null;
  - `checks`: each with `check`, `outcome`, `run`, and, where there is something, `failure`, `cause`, `message`,
    `findings`, `evidence`, `seconds`, as in a file of results;
  - `measures`: `seconds`, `load_seconds`, `first_token_seconds`, `tokens_per_second`, `load_memory`,
    `generate_memory`, `devices`, `tokens` of its last run, or null.
- `conflicts`: `cell`, `check`, `why`, and `samples`, each `run` and `outcome`, the one that counts first.
- `notes`: sentences.
- `comparison`: with a baseline, or null: `baseline`, `unchanged`, `counts`, `transitions` (`name`, `target`, `cell`,
  `check`, `before`, `after`, `detail`), `notes`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any, Final

from pytest_llmdevice.matrix.cell import AXES
from pytest_llmdevice.report.marks import Mark
from pytest_llmdevice.report.summary import why_not
from pytest_llmdevice.results.merged_results import CellView, MergedResults, Sample
from pytest_llmdevice.results.transitions import Comparison
from pytest_llmdevice.results.vocabulary import WORST_FIRST

SCHEMA: Final = 1
"""Counts up whenever a reader of an older version would misunderstand the document."""

_MEASURES: Final = {
    "seconds",
    "load_seconds",
    "first_token_seconds",
    "tokens_per_second",
    "load_memory",
    "generate_memory",
    "devices",
    "tokens",
}


def document(merged: MergedResults, comparison: Comparison | None = None) -> dict[str, Any]:
    """`merged` as data that `json.dumps` takes; the keys are those that the module describes."""
    return {
        "schema": SCHEMA,
        "counts": {"real": _counts(merged, simulated=False), "simulated": _counts(merged, simulated=True)},
        "runs": [run.model_dump(mode="json", by_alias=True, exclude={"type"}) for run in merged.runs],
        "cells": [_cell(view) for view in merged.cells.values()],
        "conflicts": [
            {
                "cell": each.cell,
                "check": each.check,
                "why": each.why,
                "samples": [{"run": one.run.run, "outcome": one.check.outcome} for one in each.samples],
            }
            for each in merged.conflicts
        ],
        "notes": list(merged.notes),
        "comparison": None if comparison is None else _comparison(comparison),
    }


def _counts(merged: MergedResults, *, simulated: bool) -> dict[str, int]:
    counts = Counter(Mark.of(view) for view in merged.cells.values())
    marks = [Mark(outcome, simulated) for outcome in WORST_FIRST]
    return {mark.outcome: counts[mark] for mark in marks if counts[mark]}


def _cell(view: CellView) -> dict[str, Any]:
    cause, reason = ("", "") if view.ran else why_not(view)
    last = view.last
    return {
        "cell": view.id,
        "target": view.target,
        **{axis: getattr(view.cell, axis) for axis in AXES},
        "kind": view.cell.kind,
        "simulated": view.cell.simulated and view.ran,
        "ran": view.ran,
        "outcome": view.outcome,
        "run": view.run.run,
        "not_run": None if view.ran else {"cause": cause, "reason": reason},
        "checks": [_check(sample) for sample in view.checks.values()],
        "measures": None if last is None else last.model_dump(mode="json", include=_MEASURES),
    }


def _check(sample: Sample) -> dict[str, Any]:
    left_out = {"type", "cell", "target", "simulated", "check", "outcome"}
    said = sample.check.model_dump(mode="json", exclude=left_out, exclude_defaults=True)
    return {"check": sample.check.check, "outcome": sample.check.outcome, "run": sample.run.run, **said}


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "baseline": comparison.baseline,
        "unchanged": comparison.unchanged,
        "counts": dict(comparison.counts),
        "transitions": [asdict(each) for each in comparison.transitions],
        "notes": list(comparison.notes),
    }
