"""Writes what merged results are together, in lines for `llmdevice merge` and as data for `--json`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytest_llmdevice.report.document import conflict_data
from pytest_llmdevice.report.model import ReportModel, conflict_text
from pytest_llmdevice.report.runs import target_text
from pytest_llmdevice.results.merge import mixtures
from pytest_llmdevice.results.merged_results import MergedResults
from pytest_llmdevice.results.run_header import Run
from pytest_llmdevice.results.vocabulary import WORST_FIRST
from pytest_llmdevice.text import plural


def merge_lines(report: ReportModel) -> Iterator[str]:
    """What was merged, in lines."""
    results = report.results
    yield f"{plural(len(results.runs), 'run')}:"
    yield from (f"  {_run_line(run)}" for run in results.runs)
    yield target_text(results)
    yield report.counts_line
    if report.not_run:
        yield "not run anywhere:"
        yield from (f"  {group}" for group in report.not_run)
    if results.conflicts:
        yield f"{plural(len(results.conflicts), 'conflict')}, the worse outcome counts:"
        yield from (f"  {conflict_text(conflict)}" for conflict in results.conflicts)
    yield from (f"note: {note}" for note in (*mixtures(results), *results.notes))


def _run_line(run: Run) -> str:
    devices = ", ".join(f"{device.spec} {device.name}".strip() for device in run.machine.devices)
    simulated_on = f"simulated {', '.join(run.simulated)}" if run.simulated else ""
    where = "; ".join(part for part in (run.machine.cpu, devices, simulated_on) if part)
    shard = f", shard {run.shard}" if run.shard else ""
    return f"{run.run}: {run.matrix.name}{shard}, {run.target}, on {where or 'an unknown machine'}"


def merge_data(report: ReportModel) -> dict[str, Any]:
    """The same as data, for `--json`.

    The keys: `runs`, `cells` (how many), `outcomes` (cells by outcome, the worst first; those that ran nowhere are
    `"never ran"`), `simulated_only` (ids), `never_ran` (`device`, `reason`, `cells`; the most first), `conflicts` and
    `notes`.
    """
    results = report.results
    outcomes: dict[str, int] = {
        outcome: report.counts.count({outcome})
        for outcome in WORST_FIRST
        if report.counts.count({outcome}) and outcome != "skipped"
    }
    never = report.counts.count({"skipped"})
    return {
        "runs": [
            run.model_dump(
                mode="json", by_alias=True, include={"run", "started", "matrix", "target", "commit", "shard"}
            )
            for run in results.runs
        ],
        "cells": len(results.cells),
        "outcomes": outcomes | ({"never ran": never} if never else {}),
        "simulated_only": [view.id for view in results.cells.values() if view.ran and view.cell.simulated],
        "never_ran": _never_ran(results),
        "conflicts": [conflict_data(conflict) for conflict in results.conflicts],
        "notes": [*mixtures(results), *results.notes],
    }


def _never_ran(results: MergedResults) -> list[dict[str, Any]]:
    """The cells that ran nowhere, by device and the reasons of all machines."""
    cells: dict[tuple[str, str], list[str]] = {}
    for view in results.never_ran:
        reason = "; ".join(view.reasons.values()) or "no run says why"
        cells.setdefault((view.cell.spec, reason), []).append(view.id)
    ordered = sorted(cells.items(), key=lambda group: (-len(group[1]), *group[0]))
    return [{"device": device, "reason": reason, "cells": ids} for (device, reason), ids in ordered]
