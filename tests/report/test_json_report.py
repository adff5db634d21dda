from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from results.builder import CARD, CPU_BF16, CPU_FP32, SIMULATED, ResultsBuilder

from pytest_llmdevice.report.document import document
from pytest_llmdevice.report.model import ReportModel
from pytest_llmdevice.results.merged_results import merge_runs
from pytest_llmdevice.results.transitions import Comparison, Transition


def made(folder: Path, comparison: Comparison | None = None) -> dict[str, Any]:
    run = ResultsBuilder(
        {
            CPU_FP32: {"dtypes": "passed", "loads": "passed"},
            CPU_BF16: {"dtypes": "failed"},
            SIMULATED: {"dtypes": "passed"},
        },
        skipped={CARD: ("absent", "absent: no cuda:0 here")} if comparison is None else {},
    )
    found: dict[str, Any] = json.loads(json.dumps(document(ReportModel.of(merge_runs([run.file(folder)]), comparison))))
    return found


def test_the_keys_are_those_that_are_documented(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert list(found) == [
        "schema",
        "targets",
        "counts",
        "runs",
        "cells",
        "conflicts",
        "notes",
        "comparison",
        "problems",
    ]
    assert list(found["cells"][0]) == [
        "cell",
        "target",
        "model",
        "device",
        "dtype",
        "quantization",
        "strategy",
        "attention",
        "kind",
        "simulated",
        "ran",
        "outcome",
        "run",
        "loaded",
        "lacking",
        "not_run",
        "checks",
        "measures",
    ]


def test_what_passed_simulated_is_not_counted_as_real(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert found["counts"] == {"real": {"failed": 1, "passed": 1}, "simulated": {"passed": 1}}
    assert [each["simulated"] for each in found["cells"]] == [False, False, True]


def test_a_cell_has_its_checks_findings_and_measures(tmp_path: Path) -> None:
    failed = made(tmp_path)["cells"][1]
    assert failed["cell"] == "llama.cpu.bf16.none.to"
    assert failed["checks"][0]["check"] == "dtypes"
    assert failed["checks"][0]["findings"][0]["where"] == "lm_head.weight"
    assert failed["measures"]["load_seconds"] == 0.2
    assert failed["measures"]["load_memory"][0]["place"] == "host"


def test_a_cell_that_did_not_run_says_why(tmp_path: Path) -> None:
    run = ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}, skipped={CARD: ("absent", "absent: no cuda:0 here")})
    found = document(ReportModel.of(merge_runs([run.file(tmp_path)])))
    cell = found["cells"][1]
    assert (cell["ran"], cell["outcome"], cell["measures"], cell["checks"]) == (False, "skipped", None, [])
    assert cell["not_run"] == {"cause": "absent", "reason": "absent: no cuda:0 here"}
    assert found["cells"][0]["not_run"] is None


def test_the_comparison_is_there(tmp_path: Path) -> None:
    change = Transition("regression", "llama.cpu.fp32.none.to", "dtypes", "builtin", "passed", "failed", "lm_head")
    found = made(tmp_path, Comparison("base.json", (change,), 3, ("a note",)))["comparison"]
    assert found["counts"] == {"regression": 1}
    assert found["transitions"][0]["before"] == "passed"
    assert (found["unchanged"], found["notes"]) == (3, ["a note"])


def test_a_contradiction_names_the_runs(tmp_path: Path) -> None:
    first = ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}, name="1").file(tmp_path)
    second = ResultsBuilder({CPU_FP32: {"dtypes": "failed"}}, name="2").file(tmp_path)
    (conflict,) = document(ReportModel.of(merge_runs([first, second])))["conflicts"]
    assert {each["run"]: each["outcome"] for each in conflict["samples"]} == {"1": "passed", "2": "failed"}
