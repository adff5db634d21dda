"""The command `llmdevice gate`, which answers by an exit code whether results are as good as a baseline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pytest_llmdevice.cli.output import say, say_json
from pytest_llmdevice.results.transitions import DEFAULT, FAIL_ON_WORDS

if TYPE_CHECKING:
    from pytest_llmdevice.matrix.schema import Require
    from pytest_llmdevice.report.model import ReportModel
    from pytest_llmdevice.results.gate import GateResult
    from pytest_llmdevice.results.merged_results import MergedResults

_PATH = click.Path(path_type=Path)


@click.command("gate")
@click.argument("results", nargs=-1, required=True, type=_PATH)
@click.option("--baseline", type=_PATH, metavar="FILE", help="What the results have to be like.")
@click.option("--require", metavar="NAME_OR_PATH", help="A matrix; coverage that its [require] asks for must be there.")
@click.option(
    "--fail-on",
    default="",
    metavar="WORDS",
    help=f"Differences from the baseline that fail: {', '.join(FAIL_ON_WORDS)}; slower and memory take a percentage, "
    f"as in slower:20%. By default: {DEFAULT}.",
)
@click.option("--update", "updating", is_flag=True, help="Write the baseline from the results instead.")
@click.option(
    "--force",
    multiple=True,
    metavar="WORD",
    help="Let --update write what it would refuse: ci, dirty, failing, unstable, vanished, other-matrix.",
)
@click.option("--json", "as_json", is_flag=True, help="The answer and every difference as JSON.")
def command(
    results: tuple[Path, ...],
    baseline: Path | None,
    require: str | None,
    fail_on: str,
    force: tuple[str, ...],
    *,
    updating: bool,
    as_json: bool,
) -> None:
    """Say whether RESULTS are good enough: exit code 0 where they are, 1 where not, 2 where the question is wrong."""
    if updating and (require or fail_on):
        raise click.UsageError("--update writes a baseline and judges nothing: leave --require and --fail-on out")
    if force and not updating:
        raise click.UsageError("--force is for --update: give both")
    if baseline is None and (fail_on or updating):
        raise click.UsageError(f"{'--update' if updating else '--fail-on'} needs a baseline: give --baseline FILE")
    from pytest_llmdevice.results.collecting import without_collection

    with without_collection():
        if updating and baseline is not None:
            _update(results, baseline, force, as_json=as_json)
        else:
            _evaluate(results, baseline, require, fail_on, as_json=as_json)


def _update(results: Sequence[Path], baseline: Path, force: Sequence[str], *, as_json: bool) -> None:
    from pytest_llmdevice.results.merged_results import merge_runs
    from pytest_llmdevice.results.store import read
    from pytest_llmdevice.results.update import update
    from pytest_llmdevice.text import plural

    written = update(merge_runs(read(list(results))), baseline, force=_words(force), environment=os.environ)
    counts = {"cells": len(written.cells), "checks": len(written.checks)}
    if as_json:
        say_json({"baseline": str(baseline), **counts, "notes": list(written.notes)})
        return
    say(f"{baseline}: written, {plural(len(written.checks), 'check')} of {plural(len(written.cells), 'cell')}")
    say(written.notes)


def _words(given: Sequence[str]) -> list[str]:
    return [word.strip() for text in given for word in text.split(",") if word.strip()]


def _evaluate(
    results: Sequence[Path], baseline: Path | None, require: str | None, fail_on: str, *, as_json: bool
) -> None:
    from pytest_llmdevice.report.gate_text import gate_lines
    from pytest_llmdevice.report.model import ReportModel
    from pytest_llmdevice.results.baseline import read_baseline
    from pytest_llmdevice.results.compare import compare
    from pytest_llmdevice.results.gate import evaluate_gate, parse_fail_on
    from pytest_llmdevice.results.merged_results import merge_runs
    from pytest_llmdevice.results.store import read

    # What is wrong with the question is said before thousands of records are read.
    rules = parse_fail_on(fail_on)
    asked = _required(require) if require else None
    held = read_baseline(baseline) if baseline else None
    merged = merge_runs(read(list(results)))
    missing = _missing(asked, merged) if asked else []
    comparison = compare(merged, held, slower=rules.slower, larger=rules.larger) if held else None
    gate_result = evaluate_gate(comparison, merged, rules, missing)
    report = ReportModel.of(merged, comparison)
    if as_json:
        say_json(_as_data(gate_result, report))
    else:
        say(gate_lines(gate_result, report))
    raise SystemExit(0 if gate_result.good else 1)


def _required(name: str) -> Require:
    """The `[require]` of the matrix `name`; a usage error where it has none."""
    from pytest_llmdevice.matrix.expand import load

    required = load(name, Path.cwd()).require
    if required is None:
        raise click.UsageError(f"--require {name}: the matrix has no [require]: add one, or name another matrix")
    return required


def _missing(required: Require, merged: MergedResults) -> list[str]:
    from pytest_llmdevice.matrix.required import missing

    # One cell for each question, however many targets it was asked of.
    cells = {name: view.cell for (_, name), view in merged.cells.items()}
    return missing(required, list(cells.values()), merged.passed)


def _as_data(gate_result: GateResult, report: ReportModel) -> dict[str, object]:
    from pytest_llmdevice.report.merge_text import merge_data

    comparison = report.comparison
    return {
        "good": gate_result.good,
        "reasons": list(gate_result.reasons),
        "missing": list(gate_result.missing),
        "baseline": comparison.baseline if comparison else None,
        "unchanged": comparison.unchanged if comparison else 0,
        "counts": dict(comparison.counts) if comparison else {},
        "transitions": [asdict(transition) for transition in comparison.transitions] if comparison else [],
        "comparison_notes": list(comparison.notes) if comparison else [],
        "results": merge_data(report),
    }
