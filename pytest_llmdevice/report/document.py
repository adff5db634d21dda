"""Writes results as one JSON document, for programs that ask what became of a cell.

The keys, which keep their meaning as long as `schema` does not count up:

- `schema`: 1.
- `targets`: the code under test, each its `name`, and `builtin` where it is the loader of the product itself.
- `counts`: cells by outcome, `{"real": {...}, "simulated": {...}}`. What did not run is `skipped`, and real.
- `runs`: the header of each run as in a file of results: `run`, `started`, `versions`, `machine`, `matrix`, `target`,
  `commit`, `command`, `shard`, `ci`, `simulated`, `plugin`.
- `cells`, in the order of the matrix, each with
  - `cell`, `target`, and the axes `model`, `device`, `dtype`, `quantization`, `strategy`, `attention`, `kind`;
  - `simulated`: whether it ran on a simulated device; `ran`: whether it ran at all; `outcome`: the worst of its checks;
  - `run`: the run that the cell was last seen in;
  - `loaded`: whether there was a model; `lacking`: the checks that its matrix requires of it and that did not run;
  - `not_run`: `{"cause", "reason"}` where it never ran, else null;
  - `checks`: each with `check`, `outcome`, `run`, and, where there is something, `failure`, `cause`, `message`,
    `findings`, `evidence`, `seconds`, as in a file of results;
  - `measures`: `seconds`, `load_seconds`, `first_token_seconds`, `tokens_per_second`, `load_memory`,
    `generate_memory`, `devices`, `tokens` of its last run, or null.
- `conflicts`: `cell`, `check`, `why`, and `samples`, each `run` and `outcome`, the one that counts first.
- `notes`: sentences.
- `comparison`: with a baseline, or null: `baseline`, `unchanged`, `counts`, `transitions` (`name`, `target`, `cell`,
  `check`, `before`, `after`, `detail`), `notes`.
- `problems`: what is wrong, what concerns most cells first: `outcome`, `title`, `description`, `checks`, `cells` (each
  `cell` and `target`), `findings` (how many), `examples` (some of them, as in a file of results) and `follows`, what
  fails because of it: `check`, `cells` and `findings` (how many), `description` and `hint`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from pytest_llmdevice.matrix.cell import AXES
from pytest_llmdevice.report.model import ReportModel
from pytest_llmdevice.report.not_run import why_not
from pytest_llmdevice.report.problems import Follower, Problem
from pytest_llmdevice.results.cell_view import CellView, Conflict, Sample
from pytest_llmdevice.results.run_header import BUILTIN
from pytest_llmdevice.results.transitions import Comparison

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


def document(report: ReportModel) -> dict[str, Any]:
    """`report` as data that `json.dumps` takes; the keys are those that the module describes."""
    results, comparison = report.results, report.comparison
    return {
        "schema": SCHEMA,
        "targets": [{"name": target, "builtin": target == BUILTIN} for target in results.targets],
        "counts": {"real": _counts(report, simulated=False), "simulated": _counts(report, simulated=True)},
        "runs": [run.model_dump(mode="json", by_alias=True, exclude={"type"}) for run in results.runs],
        "cells": [_cell(view) for view in results.cells.values()],
        "conflicts": [conflict_data(conflict) for conflict in results.conflicts],
        "notes": list(results.notes),
        "comparison": None if comparison is None else _comparison(comparison),
        "problems": [_problem(problem) for problem in report.problems],
    }


def conflict_data(conflict: Conflict) -> dict[str, Any]:
    """A conflict as data: `cell`, `check`, `why` and `samples`."""
    return {
        "cell": conflict.cell,
        "check": conflict.check,
        "why": conflict.why,
        "samples": [{"run": sample.run.run, "outcome": sample.check.outcome} for sample in conflict.samples],
    }


def _counts(report: ReportModel, *, simulated: bool) -> dict[str, int]:
    return {mark.outcome: count for mark, count in report.counts.marks if mark.simulated == simulated}


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
        "loaded": view.ran and view.loaded,
        "lacking": list(view.lacking) if view.ran else [],
        "not_run": None if view.ran else {"cause": cause, "reason": reason},
        "checks": [_check(sample) for sample in view.checks.values()],
        "measures": None if last is None else last.model_dump(mode="json", include=_MEASURES),
    }


def _check(sample: Sample) -> dict[str, Any]:
    left_out = {"type", "cell", "target", "simulated", "check", "outcome"}
    rest = sample.check.model_dump(mode="json", exclude=left_out, exclude_defaults=True)
    return {"check": sample.check.check, "outcome": sample.check.outcome, "run": sample.run.run, **rest}


def _problem(problem: Problem) -> dict[str, Any]:
    return {
        "outcome": problem.outcome,
        "title": problem.title,
        "description": problem.description,
        "checks": list(problem.checks),
        "cells": [{"cell": view.id, "target": view.target} for view in problem.cells],
        "findings": problem.findings,
        "examples": [finding.model_dump(mode="json", exclude_defaults=True) for finding in problem.examples],
        "follows": [_follower(follower) for follower in problem.follows.values()],
    }


def _follower(follower: Follower) -> dict[str, Any]:
    return {
        "check": follower.check,
        "cells": follower.cells,
        "findings": follower.findings,
        "description": follower.description,
        "hint": follower.finding.hint if follower.finding is not None else "",
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "baseline": comparison.baseline,
        "unchanged": comparison.unchanged,
        "counts": dict(comparison.counts),
        "transitions": [asdict(transition) for transition in comparison.transitions],
        "notes": list(comparison.notes),
    }
