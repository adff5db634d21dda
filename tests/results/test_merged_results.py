"""Many runs as one matrix: which of several records counts, what is a conflict, and what never ran."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.results.merged_results import DIFFERING, TWOFOLD, CellView, Union, unite
from pytest_llmdevice.results.records import Commit, Outcome
from pytest_llmdevice.results.store import read
from results.making import CARD, COMMIT, CPU_BF16, CPU_FP32, CUDA, SIMULATED, VERSIONS, Making, check

LATER = Commit(id="fedcba9876543210")
DIRTY = Commit(id="0123456789abcdef", dirty=True)


def making(number: int, outcome: Outcome = "passed", cell: Cell = CPU_FP32) -> Making:
    """The run that started as the one of this number, with one check of `cell`."""
    started = f"2026-11-25T10:{number:02}:00+00:00"
    return Making({cell: {"dtypes": outcome}}, name=f"run-{number:02}", started=started)


def united(folder: Path, *runs: Making) -> Union:
    for each in runs:
        each.write(folder)
    return unite(read(folder))


def view(union: Union, cell: Cell = CPU_FP32, target: str = "builtin") -> CellView:
    return union.cells[target, cell.id.removesuffix(".sim")]


@pytest.mark.parametrize(("before", "after"), [("passed", "failed"), ("failed", "passed")])
def test_a_later_run_of_another_commit_counts_whichever_way_it_went(
    tmp_path: Path, before: Outcome, after: Outcome
) -> None:
    union = united(tmp_path, making(1, before), replace(making(2, after), commit=LATER))
    assert view(union).outcome == after
    assert union.conflicts == ()


@pytest.mark.parametrize("commit", [DIRTY, None], ids=["changed tree", "no repository"])
def test_a_later_run_counts_where_no_commit_says_that_the_code_is_the_same(
    tmp_path: Path, commit: Commit | None
) -> None:
    union = united(tmp_path, replace(making(1, "failed"), commit=commit), replace(making(2), commit=commit))
    assert view(union).outcome == "passed"
    assert union.conflicts == ()


def test_two_outcomes_of_one_commit_on_one_machine_are_a_conflict_and_the_worse_counts(tmp_path: Path) -> None:
    union = united(tmp_path, making(1, "failed"), making(2), making(3))
    assert view(union).outcome == "failed"
    (conflict,) = union.conflicts
    assert (conflict.cell, conflict.check, conflict.why) == (CPU_FP32.id, "dtypes", TWOFOLD)
    assert [sample.run.run for sample in conflict.samples] == ["run-01", "run-02", "run-03"]


def test_two_outcomes_in_one_run_are_a_conflict_also_of_a_changed_tree(tmp_path: Path) -> None:
    run = replace(making(1), commit=DIRTY)
    path = run.write(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    again = check(CPU_FP32, "dtypes", "failed").model_dump_json(exclude_defaults=True)
    path.write_text("".join([*lines[:-1], f'{{"type":"check",{again[1:]}\n', lines[-1]]))
    union = unite(read(tmp_path))
    assert view(union).outcome == "failed"
    assert union.conflicts[0].why == TWOFOLD


def test_machines_that_disagree_are_a_conflict_and_the_worse_counts(tmp_path: Path) -> None:
    union = united(tmp_path, replace(making(1, "failed"), machine=CUDA), making(2))
    assert view(union).outcome == "failed"
    (conflict,) = union.conflicts
    assert conflict.why == DIFFERING
    assert [sample.run.run for sample in conflict.samples] == ["run-01", "run-02"]


def test_versions_that_disagree_are_a_conflict(tmp_path: Path) -> None:
    newer = replace(making(2), versions=VERSIONS | {"torch": "2.14.0"})
    assert united(tmp_path, making(1, "xfail"), newer).conflicts[0].why == DIFFERING


def test_machines_that_agree_are_none_and_the_latest_is_shown(tmp_path: Path) -> None:
    union = united(tmp_path, making(1), replace(making(2), machine=CUDA), replace(making(3), machine=CUDA))
    assert union.conflicts == ()
    assert view(union).checks["dtypes"].run.run == "run-03"
    assert view(union).run.run == "run-03"


def test_a_machine_that_skipped_a_check_says_nothing_about_it(tmp_path: Path) -> None:
    union = united(tmp_path, making(1), making(2, "skipped"))
    assert view(union).outcome == "passed"
    last = view(union).last
    assert last is not None
    assert last.outcome == "passed"
    assert union.conflicts == ()


@pytest.mark.parametrize("real", ["passed", "failed", "hollow"])
@pytest.mark.parametrize("later", [True, False])
def test_real_beats_simulated_whichever_came_first_and_whichever_passed(
    tmp_path: Path, real: Outcome, *, later: bool
) -> None:
    numbers = (2, 1) if later else (1, 2)
    card = replace(making(numbers[0], real, CARD), machine=CUDA)
    simulated_on = making(numbers[1], "passed" if real != "passed" else "failed", SIMULATED)
    union = united(tmp_path, card, simulated_on)
    assert view(union, CARD).id == CARD.id
    assert view(union, CARD).outcome == real
    assert [record.simulated for _, record in view(union, CARD).done] == [False]
    assert union.conflicts == ()


def test_a_check_that_only_a_simulated_device_was_asked_is_none_of_the_real_cell(tmp_path: Path) -> None:
    simulated_on = Making({SIMULATED: {"dtypes": "passed", "cards": "failed"}}, name="simulated")
    union = united(tmp_path, replace(making(1, "passed", CARD), machine=CUDA), simulated_on)
    assert list(view(union, CARD).checks) == ["dtypes"]
    assert view(union, CARD).outcome == "passed"


def test_a_card_that_skipped_does_not_hide_that_it_passed_simulated(tmp_path: Path) -> None:
    absent = Making({CPU_FP32: {"dtypes": "passed"}}, skipped={CARD: ("absent", "absent: no card")})
    union = united(tmp_path, absent, making(1, "passed", SIMULATED))
    assert view(union, CARD).id == SIMULATED.id
    assert not union.passed(CARD)
    assert union.passed(SIMULATED)


def test_what_ran_nowhere_is_skipped_with_the_cause_of_each_machine(tmp_path: Path) -> None:
    laptop = Making({CPU_FP32: {"dtypes": "passed"}}, skipped={CARD: ("absent", "absent: no card")}, name="laptop")
    server = Making(
        {CPU_FP32: {"dtypes": "passed"}}, skipped={CARD: ("unusable", "unusable: out of memory")}, name="server"
    )
    union = united(tmp_path, laptop, server)
    (never,) = union.never_ran
    assert never.id == CARD.id
    assert never.outcome == "skipped"
    assert never.reasons == {"absent": "absent: no card", "unusable": "unusable: out of memory"}
    assert view(union).reasons == {}


def test_a_cell_whose_every_check_skipped_itself_never_ran_and_says_why(tmp_path: Path) -> None:
    union = united(tmp_path, making(1, "skipped"))
    assert [each.reasons for each in union.never_ran] == [{"by the test": "not for this one"}]


def test_a_cell_that_the_run_was_killed_in_is_aborted_whatever_passed_before(tmp_path: Path) -> None:
    killed = replace(making(1), unfinished=[CPU_BF16], killed=True)
    union = united(tmp_path, killed)
    assert view(union, CPU_BF16).outcome == "aborted"
    assert view(union).outcome == "passed"
    assert union.notes == ("run-01.jsonl: the run did not come to its end; 1 of its cells are not finished",)


def test_a_cell_that_an_interrupted_run_recorded_as_aborted_is_aborted(tmp_path: Path) -> None:
    interrupted = replace(making(1), changes={CPU_FP32: {"outcome": "aborted"}})
    assert view(united(tmp_path, interrupted)).outcome == "aborted"


@pytest.mark.parametrize(
    ("number", "commit", "outcome"),
    [(2, COMMIT, "passed"), (2, LATER, "passed"), (0, COMMIT, "passed"), (0, LATER, "aborted"), (0, None, "aborted")],
    ids=["later", "later, other code", "earlier, same code", "earlier, other code", "earlier, unknown code"],
)
def test_an_aborted_cell_is_made_good_by_a_later_run_and_by_one_of_the_same_commit(
    tmp_path: Path, number: int, commit: Commit | None, outcome: Outcome
) -> None:
    killed = Making({}, unfinished=[CPU_FP32], killed=True, name="run-01", started="2026-11-25T10:01:00+00:00")
    assert view(united(tmp_path, killed, replace(making(number), commit=commit))).outcome == outcome


def test_a_card_that_was_lost_is_not_made_good_by_another_machine_or_a_simulated_one(tmp_path: Path) -> None:
    killed = Making({}, unfinished=[CARD], killed=True, machine=CUDA, name="killed")
    union = united(tmp_path, killed, making(2, "passed", SIMULATED))
    assert view(union, CARD).outcome == "aborted"
    assert view(union, CARD).id == CARD.id


def test_each_target_has_cells_of_its_own(tmp_path: Path) -> None:
    union = united(tmp_path, making(1), replace(making(2, "failed"), target="mine:loader"))
    assert union.targets == ("builtin", "mine:loader")
    assert view(union).outcome == "passed"
    assert view(union, target="mine:loader").outcome == "failed"
    assert not union.passed(CPU_FP32)


def test_a_check_with_another_target_than_its_run_is_not_lost(tmp_path: Path) -> None:
    other = check(CPU_FP32, "dtypes", "failed", target="mine:loader")
    union = united(tmp_path, Making({CPU_FP32: {"dtypes": "passed", "again": other}}))
    assert view(union, target="mine:loader").outcome == "failed"
    assert view(union).outcome == "passed"


def test_the_cells_keep_the_order_of_the_matrix(tmp_path: Path) -> None:
    run = Making({CPU_BF16: {"dtypes": "passed"}, CPU_FP32: {"dtypes": "passed"}})
    assert [cell for _, cell in united(tmp_path, run).cells] == [CPU_BF16.id, CPU_FP32.id]


def test_only_a_whole_pass_is_one_for_required_coverage(tmp_path: Path) -> None:
    run = Making({CPU_FP32: {"dtypes": "passed", "values": "xfail"}, CPU_BF16: {"dtypes": "passed", "tied": "skipped"}})
    union = united(tmp_path, run)
    assert not union.passed(CPU_FP32)
    assert union.passed(CPU_BF16)
    assert not union.passed(CARD)
