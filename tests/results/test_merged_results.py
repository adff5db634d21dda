"""Many runs as one matrix: which of several records counts, what is a conflict, and what never ran."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.results.cell_view import CellView
from pytest_llmdevice.results.merged_results import MergedResults, merge_runs
from pytest_llmdevice.results.run_header import Commit
from pytest_llmdevice.results.settle import DIFFERING, TWOFOLD
from pytest_llmdevice.results.store import read
from pytest_llmdevice.results.vocabulary import CheckOutcome
from results.builder import CARD, COMMIT, CPU_BF16, CPU_FP32, CUDA, SIMULATED, VERSIONS, ResultsBuilder, check

LATER = Commit(id="fedcba9876543210")
DIRTY = Commit(id="0123456789abcdef", dirty=True)


def builder(number: int, outcome: CheckOutcome = "passed", cell: Cell = CPU_FP32) -> ResultsBuilder:
    """The run that started as the one of this number, with one check of `cell`."""
    started = f"2026-11-25T10:{number:02}:00+00:00"
    return ResultsBuilder({cell: {"dtypes": outcome}}, name=f"run-{number:02}", started=started)


def merge_written(folder: Path, *runs: ResultsBuilder) -> MergedResults:
    for each in runs:
        each.write(folder)
    return merge_runs(read(folder))


def view(merged: MergedResults, cell: Cell = CPU_FP32, target: str = "builtin") -> CellView:
    return merged.cells[target, cell.id.removesuffix(".sim")]


@pytest.mark.parametrize(("before", "after"), [("passed", "failed"), ("failed", "passed")])
def test_a_later_run_of_another_commit_counts_whichever_way_it_went(
    tmp_path: Path, before: CheckOutcome, after: CheckOutcome
) -> None:
    merged = merge_written(tmp_path, builder(1, before), replace(builder(2, after), commit=LATER))
    assert view(merged).outcome == after
    assert merged.conflicts == ()


@pytest.mark.parametrize("commit", [DIRTY, None], ids=["changed tree", "no repository"])
def test_a_later_run_counts_where_no_commit_says_that_the_code_is_the_same(
    tmp_path: Path, commit: Commit | None
) -> None:
    merged = merge_written(tmp_path, replace(builder(1, "failed"), commit=commit), replace(builder(2), commit=commit))
    assert view(merged).outcome == "passed"
    assert merged.conflicts == ()


def test_two_outcomes_of_one_commit_on_one_machine_are_a_conflict_and_the_worse_counts(tmp_path: Path) -> None:
    merged = merge_written(tmp_path, builder(1, "failed"), builder(2), builder(3))
    assert view(merged).outcome == "failed"
    (conflict,) = merged.conflicts
    assert (conflict.cell, conflict.check, conflict.why) == (CPU_FP32.id, "dtypes", TWOFOLD)
    assert [sample.run.run for sample in conflict.samples] == ["run-01", "run-02", "run-03"]


def test_two_outcomes_in_one_run_are_a_conflict_also_of_a_changed_tree(tmp_path: Path) -> None:
    run = replace(builder(1), commit=DIRTY)
    path = run.write(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    again = check(CPU_FP32, "dtypes", "failed").model_dump_json(exclude_defaults=True)
    path.write_text("".join([*lines[:-1], f'{{"type":"check",{again[1:]}\n', lines[-1]]))
    merged = merge_runs(read(tmp_path))
    assert view(merged).outcome == "failed"
    assert merged.conflicts[0].why == TWOFOLD


def test_machines_that_disagree_are_a_conflict_and_the_worse_counts(tmp_path: Path) -> None:
    merged = merge_written(tmp_path, replace(builder(1, "failed"), machine=CUDA), builder(2))
    assert view(merged).outcome == "failed"
    (conflict,) = merged.conflicts
    assert conflict.why == DIFFERING
    assert [sample.run.run for sample in conflict.samples] == ["run-01", "run-02"]


def test_versions_that_disagree_are_a_conflict(tmp_path: Path) -> None:
    newer = replace(builder(2), versions=VERSIONS | {"torch": "2.14.0"})
    assert merge_written(tmp_path, builder(1, "xfail"), newer).conflicts[0].why == DIFFERING


def test_machines_that_agree_are_none_and_the_latest_is_shown(tmp_path: Path) -> None:
    merged = merge_written(tmp_path, builder(1), replace(builder(2), machine=CUDA), replace(builder(3), machine=CUDA))
    assert merged.conflicts == ()
    assert view(merged).checks["dtypes"].run.run == "run-03"
    assert view(merged).run.run == "run-03"


def test_a_machine_that_skipped_a_check_says_nothing_about_it(tmp_path: Path) -> None:
    merged = merge_written(tmp_path, builder(1), builder(2, "skipped"))
    assert view(merged).outcome == "passed"
    last = view(merged).last
    assert last is not None
    assert last.outcome == "passed"
    assert merged.conflicts == ()


@pytest.mark.parametrize("real", ["passed", "failed", "hollow"])
@pytest.mark.parametrize("later", [True, False])
def test_real_beats_simulated_whichever_came_first_and_whichever_passed(
    tmp_path: Path, real: CheckOutcome, *, later: bool
) -> None:
    numbers = (2, 1) if later else (1, 2)
    card = replace(builder(numbers[0], real, CARD), machine=CUDA)
    simulated_on = builder(numbers[1], "passed" if real != "passed" else "failed", SIMULATED)
    merged = merge_written(tmp_path, card, simulated_on)
    assert view(merged, CARD).id == CARD.id
    assert view(merged, CARD).outcome == real
    assert [record.simulated for _, record in view(merged, CARD).done] == [False]
    assert merged.conflicts == ()


def test_a_check_that_only_a_simulated_device_was_asked_is_none_of_the_real_cell(tmp_path: Path) -> None:
    simulated_on = ResultsBuilder({SIMULATED: {"dtypes": "passed", "cards": "failed"}}, name="simulated")
    merged = merge_written(tmp_path, replace(builder(1, "passed", CARD), machine=CUDA), simulated_on)
    assert list(view(merged, CARD).checks) == ["dtypes"]
    assert view(merged, CARD).outcome == "passed"


def test_a_card_that_skipped_does_not_hide_that_it_passed_simulated(tmp_path: Path) -> None:
    absent = ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}, skipped={CARD: ("absent", "absent: no card")})
    merged = merge_written(tmp_path, absent, builder(1, "passed", SIMULATED))
    assert view(merged, CARD).id == SIMULATED.id
    assert not merged.passed(CARD)
    assert merged.passed(SIMULATED)


def test_what_ran_nowhere_is_skipped_with_the_cause_of_each_machine(tmp_path: Path) -> None:
    laptop = ResultsBuilder(
        {CPU_FP32: {"dtypes": "passed"}}, skipped={CARD: ("absent", "absent: no card")}, name="laptop"
    )
    server = ResultsBuilder(
        {CPU_FP32: {"dtypes": "passed"}}, skipped={CARD: ("unusable", "unusable: out of memory")}, name="server"
    )
    merged = merge_written(tmp_path, laptop, server)
    (never,) = merged.never_ran
    assert never.id == CARD.id
    assert never.outcome == "skipped"
    assert never.reasons == {"absent": "absent: no card", "unusable": "unusable: out of memory"}
    assert view(merged).reasons == {}


def test_a_cell_whose_every_check_skipped_itself_never_ran_and_says_why(tmp_path: Path) -> None:
    merged = merge_written(tmp_path, builder(1, "skipped"))
    assert [each.reasons for each in merged.never_ran] == [{"by the test": "not for this one"}]


def test_a_cell_that_the_run_was_killed_in_is_aborted_whatever_passed_before(tmp_path: Path) -> None:
    killed = replace(builder(1), unfinished=[CPU_BF16], killed=True)
    merged = merge_written(tmp_path, killed)
    assert view(merged, CPU_BF16).outcome == "aborted"
    assert view(merged).outcome == "passed"
    assert merged.notes == ("run-01.jsonl: the run did not come to its end; 1 of its cells are not finished",)


def test_a_cell_that_an_interrupted_run_recorded_as_aborted_is_aborted(tmp_path: Path) -> None:
    interrupted = replace(builder(1), changes={CPU_FP32: {"outcome": "aborted"}})
    assert view(merge_written(tmp_path, interrupted)).outcome == "aborted"


@pytest.mark.parametrize(
    ("number", "commit", "outcome"),
    [(2, COMMIT, "passed"), (2, LATER, "passed"), (0, COMMIT, "passed"), (0, LATER, "aborted"), (0, None, "aborted")],
    ids=["later", "later, other code", "earlier, same code", "earlier, other code", "earlier, unknown code"],
)
def test_an_aborted_cell_is_made_good_by_a_later_run_and_by_one_of_the_same_commit(
    tmp_path: Path, number: int, commit: Commit | None, outcome: CheckOutcome
) -> None:
    killed = ResultsBuilder({}, unfinished=[CPU_FP32], killed=True, name="run-01", started="2026-11-25T10:01:00+00:00")
    assert view(merge_written(tmp_path, killed, replace(builder(number), commit=commit))).outcome == outcome


def test_a_card_that_was_lost_is_not_made_good_by_another_machine_or_a_simulated_one(tmp_path: Path) -> None:
    killed = ResultsBuilder({}, unfinished=[CARD], killed=True, machine=CUDA, name="killed")
    merged = merge_written(tmp_path, killed, builder(2, "passed", SIMULATED))
    assert view(merged, CARD).outcome == "aborted"
    assert view(merged, CARD).id == CARD.id


def test_each_target_has_cells_of_its_own(tmp_path: Path) -> None:
    merged = merge_written(tmp_path, builder(1), replace(builder(2, "failed"), target="mine:loader"))
    assert merged.targets == ("builtin", "mine:loader")
    assert view(merged).outcome == "passed"
    assert view(merged, target="mine:loader").outcome == "failed"
    assert not merged.passed(CPU_FP32)


def test_a_check_with_another_target_than_its_run_is_not_lost(tmp_path: Path) -> None:
    other = check(CPU_FP32, "dtypes", "failed", target="mine:loader")
    merged = merge_written(tmp_path, ResultsBuilder({CPU_FP32: {"dtypes": "passed", "again": other}}))
    assert view(merged, target="mine:loader").outcome == "failed"
    assert view(merged).outcome == "passed"


def test_the_cells_keep_the_order_of_the_matrix(tmp_path: Path) -> None:
    run = ResultsBuilder({CPU_BF16: {"dtypes": "passed"}, CPU_FP32: {"dtypes": "passed"}})
    assert [cell for _, cell in merge_written(tmp_path, run).cells] == [CPU_BF16.id, CPU_FP32.id]


def test_only_a_whole_pass_is_one_for_required_coverage(tmp_path: Path) -> None:
    run = ResultsBuilder(
        {CPU_FP32: {"dtypes": "passed", "values": "xfail"}, CPU_BF16: {"dtypes": "passed", "tied": "skipped"}}
    )
    merged = merge_written(tmp_path, run)
    assert not merged.passed(CPU_FP32)
    assert merged.passed(CPU_BF16)
    assert not merged.passed(CARD)
