"""What the page says in words: verdict, shares, causes, what never ran, machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from results.builder import (
    CARD,
    COMMIT,
    CPU_BF16,
    CPU_FP32,
    CUDA,
    DTYPE_FINDING,
    SIMULATED,
    ResultsBuilder,
    check,
    large,
)

from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.report.page_causes import EXAMPLES, causes_of, grouped
from pytest_llmdevice.report.page_summary import facts, machines, never_ran, shares, verdict
from pytest_llmdevice.results.merged_results import MergedResults, merge_runs
from pytest_llmdevice.results.vocabulary import Outcome


def merged_of(folder: Path, outcomes: dict[Any, Outcome], **values: Any) -> MergedResults:
    return merge_runs(
        [ResultsBuilder({cell: {"loads": outcome} for cell, outcome in outcomes.items()}, **values).file(folder)]
    )


def test_a_good_verdict_counts_cells_on_real_hardware_alone(tmp_path: Path) -> None:
    found = verdict(merged_of(tmp_path, {CPU_FP32: "passed", CPU_BF16: "passed", SIMULATED: "passed"}))
    assert found.state == "good"
    assert found.sentence == "2 cells passed on real hardware, and nothing failed."
    assert found.details == ("1 cell ran only simulated, which says nothing about real hardware.",)


def test_a_verdict_on_simulated_cells_alone_is_not_good(tmp_path: Path) -> None:
    found = verdict(merged_of(tmp_path, {SIMULATED: "passed"}))
    assert (found.state, found.sentence) == ("simulated", "1 cell in order, none of them on real hardware.")


def test_a_bad_verdict_counts_what_is_not_in_order(tmp_path: Path) -> None:
    merged = merged_of(tmp_path, {CPU_FP32: "failed", CPU_BF16: "hollow"}, skipped={CARD: ("absent", "no card")})
    found = verdict(merged)
    assert (found.state, found.sentence) == ("bad", "2 of 2 cells that ran are not in order.")
    assert found.details == ("1 failed, 1 hollow.", "1 cell ran nowhere.")


def test_a_verdict_on_cells_that_all_never_ran_is_empty(tmp_path: Path) -> None:
    found = verdict(merged_of(tmp_path, {}, skipped={CARD: ("absent", "no card")}))
    assert (found.state, found.sentence) == ("empty", "No cell ran.")


def test_expected_failures_are_in_order_and_told(tmp_path: Path) -> None:
    found = verdict(merged_of(tmp_path, {CPU_FP32: "xfail", CPU_BF16: "passed"}))
    assert found.state == "good"
    assert found.details == ("1 cell failed as expected.",)


def test_shares_tell_real_from_simulated_and_put_what_did_not_run_last(tmp_path: Path) -> None:
    merged = merged_of(
        tmp_path,
        {CPU_FP32: "passed", SIMULATED: "passed", CPU_BF16: "failed"},
        skipped={Cell("opt", "cpu", "float32"): ("absent", "gone")},
    )
    assert [(each.outcome, each.simulated, each.count) for each in shares(merged)] == [
        ("passed", False, 1),
        ("passed", True, 1),
        ("failed", False, 1),
        ("skipped", False, 1),
    ]


def test_findings_are_grouped_by_their_hint_over_all_cells(tmp_path: Path) -> None:
    [group] = grouped(merged_of(tmp_path, {CPU_FP32: "failed", CPU_BF16: "failed"}))
    assert group.cause.key == "dtype-dropped"
    assert [view.id for view in group.cells] == [CPU_FP32.id, CPU_BF16.id]
    assert group.count == 2
    assert group.examples == [DTYPE_FINDING]


def test_findings_without_a_hint_are_grouped_by_failure_and_check(tmp_path: Path) -> None:
    bare = DTYPE_FINDING.model_copy(update={"hint": "", "advice": "", "source": ""})
    builder = ResultsBuilder({CPU_FP32: {"dtypes": check(CPU_FP32, "dtypes", "failed", findings=(bare,))}})
    [group] = grouped(merge_runs([builder.file(tmp_path)]))
    assert group.cause.key == "dtype in dtypes"
    assert group.cause.advice == ""


def test_a_failure_without_findings_is_grouped_with_what_it_says(tmp_path: Path) -> None:
    error = check(CPU_FP32, "loads", "error", failure="out-of-memory", findings=(), message="too much")
    [group] = grouped(merge_runs([ResultsBuilder({CPU_FP32: {"loads": error}}).file(tmp_path)]))
    assert (group.cause.key, group.messages, group.count) == ("out-of-memory in loads", ["too much"], 0)


def test_a_cell_whose_run_was_gone_has_a_cause_too(tmp_path: Path) -> None:
    merged = merged_of(tmp_path, {}, unfinished=[CPU_FP32], killed=True)
    [view] = merged.cells.values()
    assert [cause.key for cause in causes_of(view)] == ["aborted, before a check was recorded"]


def test_expected_failures_have_no_cause(tmp_path: Path) -> None:
    assert grouped(merged_of(tmp_path, {CPU_FP32: "xfail"})) == []


def test_a_cause_quotes_a_few_findings(tmp_path: Path) -> None:
    findings = tuple(DTYPE_FINDING.model_copy(update={"where": f"layer.{place}"}) for place in range(9))
    builder = ResultsBuilder({CPU_FP32: {"dtypes": check(CPU_FP32, "dtypes", "failed", findings=findings)}})
    [group] = grouped(merge_runs([builder.file(tmp_path)]))
    assert (len(group.examples), group.count) == (EXAMPLES, 9)


def test_the_cause_behind_the_most_cells_is_first(tmp_path: Path) -> None:
    merged = merge_runs([large(5, lambda _cell, name: "failed" if name == "dtypes" else "passed").file(tmp_path)])
    hollow = merged_of(tmp_path / "other", {CARD: "hollow"}, name="b")
    both = MergedResults(merged.runs, {**hollow.cells, **merged.cells})
    assert [group.cause.key for group in grouped(both)] == ["dtype-dropped", "hollow in loads"]


def test_what_never_ran_is_grouped_by_cause_and_reason(tmp_path: Path) -> None:
    merged = merged_of(
        tmp_path,
        {CPU_FP32: "passed"},
        skipped={CARD: ("absent", "no card"), CPU_BF16: ("unsupported", "too old")},
    )
    assert [(each.cause, each.reason, len(each.cells)) for each in never_ran(merged)] == [
        ("absent", "no card", 1),
        ("unsupported", "too old", 1),
    ]


def test_a_cell_that_its_run_did_not_reach_never_ran(tmp_path: Path) -> None:
    [group] = never_ran(merged_of(tmp_path, {}, unfinished=[CPU_FP32]))
    assert (group.cause, group.reason) == ("not reached", "it was to run, and its run ended without it")


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
