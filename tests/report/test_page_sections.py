"""What the page says in words: the shares of outcomes, facts and machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from results.builder import (
    CARD,
    COMMIT,
    CPU_BF16,
    CPU_FP32,
    CUDA,
    SIMULATED,
    ResultsBuilder,
)

from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.report.model import ReportModel
from pytest_llmdevice.report.page_sections import details, facts, machines, shares
from pytest_llmdevice.results.merged_results import MergedResults, merge_runs
from pytest_llmdevice.results.vocabulary import CheckOutcome


def merged_of(folder: Path, outcomes: dict[Any, CheckOutcome], **values: Any) -> MergedResults:
    return merge_runs(
        [ResultsBuilder({cell: {"loads": outcome} for cell, outcome in outcomes.items()}, **values).file(folder)]
    )


def test_below_the_headline_are_the_counts_and_what_simulation_does_not_show(tmp_path: Path) -> None:
    report = ReportModel.of(merged_of(tmp_path, {CPU_FP32: "passed", SIMULATED: "passed"}))
    assert details(report) == [
        "2 cells: 1 passed; simulated: 1 passed.",
        "1 cell ran only simulated, which says nothing about real hardware.",
    ]


def test_shares_tell_real_from_simulated_and_put_what_did_not_run_last(tmp_path: Path) -> None:
    merged = merged_of(
        tmp_path,
        {CPU_FP32: "passed", SIMULATED: "passed", CPU_BF16: "failed"},
        skipped={Cell("opt", "cpu", "float32"): ("absent", "gone")},
    )
    assert [(mark.outcome, mark.simulated, count) for mark, count in shares(ReportModel.of(merged))] == [
        ("passed", False, 1),
        ("passed", True, 1),
        ("failed", False, 1),
        ("skipped", False, 1),
    ]


def test_machines_say_what_they_have_and_what_they_ran(tmp_path: Path) -> None:
    merged = merged_of(
        tmp_path, {CARD: "passed"}, machine=CUDA, skipped={CPU_FP32: ("not requested", "x")}, simulated=("mps",)
    )
    [row] = machines(merged)
    assert row.machine == "NVIDIA H100, Server CPU"
    assert row.devices == ("cuda:0, NVIDIA H100, 80 GiB, 9.0",)
    assert (row.planned, row.ran, row.simulated) == (2, 1, "mps")
    assert "torch 2.13.0" in row.versions


def test_the_head_names_matrix_commit_date_machines_and_versions(tmp_path: Path) -> None:
    found = dict(facts(merged_of(tmp_path, {CPU_FP32: "passed"})))
    assert found["matrix"] == ["default"]
    assert found["commit"] == [COMMIT.id[:10]]
    assert found["ran"] == ["2026-11-25 10:00 UTC"]
    assert found["machines"] == ["Some CPU"]
    assert "transformers 5.23.0" in found["versions"]


def test_runs_of_one_day_are_told_on_one_line_and_others_on_two(tmp_path: Path) -> None:
    def period(*moments: str) -> list[str]:
        builders = [
            ResultsBuilder({CPU_FP32: {"loads": "passed"}}, name=f"run-{place}", started=moment)
            for place, moment in enumerate(moments)
        ]
        return dict(facts(merge_runs([builder.file(tmp_path / moments[0]) for builder in builders])))["ran"]

    assert period("2026-11-25T10:00:00+00:00", "2026-11-25T12:30:00+00:00") == ["2026-11-25 10:00 to 12:30 UTC"]
    assert period("2026-11-24T10:00:00+00:00", "2026-11-25T12:30:00+00:00") == [
        "2026-11-24 10:00 UTC",
        "2026-11-25 12:30 UTC",
    ]
