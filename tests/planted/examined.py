"""What all checks say of a planted fault, as the results of a run."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from corpus.case import Case
from results.builder import ResultsBuilder

from pytest_llmdevice import Cell, Result
from pytest_llmdevice.diagnosis.classes import class_of_findings
from pytest_llmdevice.diagnosis.folding import fold_findings
from pytest_llmdevice.plugin.failures import MOST
from pytest_llmdevice.plugin.item_record import recorded_finding
from pytest_llmdevice.results.merged_results import MergedResults, merge_runs
from pytest_llmdevice.results.records import Check
from pytest_llmdevice.results.vocabulary import CheckOutcome


def examined(target: ModuleType, cells: tuple[Cell, ...]) -> dict[Cell, list[Result]]:
    """The results of all checks on all cells, with another dtype of each cell loaded in between."""
    found = {}
    for cell in cells:
        dtype = "float32" if cell.dtype == "bfloat16" else "bfloat16"
        other = Cell(cell.model, cell.device, dtype, simulated=cell.simulated)
        others = (other,) if cell.quantization == "none" else ()
        machine = "cuda:2" if cell.simulated else ""
        case = Case(
            target.__name__, "planted", "", "", lambda: target, lambda: target, (cell,), machine=machine, others=others
        )
        found[cell] = list(case.run(target, cell))
    return found


def merged(results: dict[Cell, list[Result]], folder: Path) -> MergedResults:
    """`results` as a run has them recorded and read back."""
    checks = {cell: {one.check: record(cell, one) for one in made} for cell, made in results.items()}
    return merge_runs([ResultsBuilder(checks).file(folder)])


def record(cell: Cell, result: Result) -> Check:
    """The record that the plugin makes of a result."""
    no_model = any(finding.kind == "no model" for finding in result.findings)
    if result.outcome == "inapplicable":
        return Check(
            cell=cell.id, simulated=cell.simulated, check=result.check, outcome="skipped", cause="does not apply",
            message=f"does not apply: {result.inapplicable}",
        )  # fmt: skip
    outcome: CheckOutcome = "error" if no_model else result.outcome
    values: dict[str, Any] = (
        {} if outcome in {"passed", "hollow"} else {"failure": class_of_findings(result.check, result.findings)}
    )
    folded = [finding for finding, _ in fold_findings(result.findings)]
    findings = () if outcome == "hollow" else tuple(map(recorded_finding, folded[:MOST]))
    message = "" if result.passed else result.message(cell.id).partition("\n")[0]
    return Check(
        cell=cell.id, simulated=cell.simulated, check=result.check, outcome=outcome,
        message=message, findings=findings, **values,
    )  # fmt: skip
