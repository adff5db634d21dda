"""Results held against a baseline: what each difference is called and what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_llmdevice.errors import ResultsError
from pytest_llmdevice.results.baseline import Baseline
from pytest_llmdevice.results.compare import compare
from pytest_llmdevice.results.merged_results import MergedResults, merge_runs
from pytest_llmdevice.results.store import read
from pytest_llmdevice.results.transitions import Comparison, Name, Transition
from pytest_llmdevice.results.update import FORCE_WORDS, update
from pytest_llmdevice.results.vocabulary import CheckOutcome
from results.builder import CARD, CPU_BF16, CPU_FP32, CUDA, SIMULATED, VERSIONS, ResultsBuilder, check

OLD = ResultsBuilder({CPU_FP32: {"dtypes": "passed"}, CPU_BF16: {"dtypes": "passed"}}, name="old")
OLD_CARD = ResultsBuilder({CARD: {"dtypes": "passed"}}, machine=CUDA, name="old-card")
NEW = replace(OLD, name="new", started="2026-11-26T10:00:00+00:00")


@pytest.fixture
def hold(tmp_path: Path) -> Callable[..., Comparison]:
    """Holds runs against a baseline of other runs."""

    def held(before: list[ResultsBuilder], *after: ResultsBuilder) -> Comparison:
        return compare(merge_written(tmp_path / "after", *after), baseline(tmp_path, *before))

    return held


def merge_written(folder: Path, *runs: ResultsBuilder) -> MergedResults:
    for each in runs:
        each.write(folder)
    return merge_runs(read(folder))


def baseline(folder: Path, *runs: ResultsBuilder) -> Baseline:
    found = merge_written(folder / "before", *runs)
    return update(found, folder / "baseline.jsonl", force=FORCE_WORDS, environment={}, today="2026-11-25")


def only(comparison: Comparison) -> Transition:
    (found,) = comparison.transitions
    return found


def test_the_same_results_are_unchanged(hold: Callable[..., Comparison]) -> None:
    found = hold([OLD], NEW)
    assert (found.unchanged, found.transitions) == (2, ())


def test_a_failure_says_what_was_found(hold: Callable[..., Comparison]) -> None:
    found = only(hold([OLD], replace(NEW, outcomes={**OLD.outcomes, CPU_FP32: {"dtypes": "failed"}})))
    assert (found.name, found.cell, found.check) == ("regression", CPU_FP32.id, "dtypes")
    assert found.detail == "lm_head.weight: expected bfloat16, is float32 [dtype]"


def test_a_check_that_is_gone_from_a_cell_that_ran_vanished(hold: Callable[..., Comparison]) -> None:
    before = replace(OLD, outcomes={CPU_FP32: {"dtypes": "passed", "loads": "passed"}})
    found = only(hold([before], replace(NEW, outcomes={CPU_FP32: {"loads": "passed"}})))
    assert (found.name, found.check) == ("vanished", "dtypes")
    assert found.detail == "the cell ran, and no test of this name: renamed, removed or left out"


def test_a_new_check_is_new(hold: Callable[..., Comparison]) -> None:
    found = only(hold([OLD], replace(NEW, outcomes={**OLD.outcomes, CPU_FP32: {"dtypes": "passed", "x": "passed"}})))
    assert (found.name, found.before, found.after, found.failing) == ("new", "absent", "passed", False)


def test_a_check_that_is_new_and_skipped_is_nothing(hold: Callable[..., Comparison]) -> None:
    run = replace(NEW, outcomes={**OLD.outcomes, CPU_FP32: {"dtypes": "passed", "x": "skipped"}})
    assert hold([OLD], run).transitions == ()


@pytest.mark.parametrize(
    ("cause", "name", "reason"),
    [
        ("absent", "absent", "absent: no device"),
        ("not requested", "not-requested", "not requested: --llm-cell leaves it out"),
        ("unusable", "unusable", "unusable: the probe failed"),
        ("unsupported", "unsupported", "unsupported: transformers will not"),
        ("not offered", "withdrawn", "not offered: no quantization"),
    ],
)
def test_a_cell_that_did_not_run_is_named_by_the_cause(
    hold: Callable[..., Comparison], cause: str, name: Name, reason: str
) -> None:
    run = replace(NEW, outcomes={CPU_FP32: {"dtypes": "passed"}}, skipped={CPU_BF16: (cause, reason)})
    found = only(hold([OLD], run))
    assert (found.name, found.cell, found.detail) == (name, CPU_BF16.id, reason)


def test_a_cell_that_the_matrix_does_not_have_is_unused(hold: Callable[..., Comparison]) -> None:
    found = only(hold([OLD], replace(NEW, outcomes={CPU_FP32: {"dtypes": "passed"}})))
    assert (found.name, found.detail) == ("unused", "the matrix has no such cell")


def test_a_target_that_no_run_is_of_is_unused(hold: Callable[..., Comparison]) -> None:
    found = hold([OLD], replace(NEW, target="mine:loader"))
    assert {each.detail for each in found.transitions if each.name == "unused"} == {"no run is of this target"}
    assert found.counts == {"unused": 2, "new": 2}


def test_a_check_that_the_run_did_not_live_to_see_is_aborted(hold: Callable[..., Comparison]) -> None:
    run = replace(NEW, outcomes={CPU_FP32: {"dtypes": "passed"}}, unfinished=[CPU_BF16], killed=True)
    found = only(hold([OLD], run))
    assert (found.name, found.cell, found.failing) == ("aborted", CPU_BF16.id, True)


def test_a_new_cell_that_the_run_did_not_live_to_see_is_failing(hold: Callable[..., Comparison]) -> None:
    found = only(hold([OLD], replace(NEW, unfinished=[CARD], killed=True)))
    assert (found.name, found.cell, found.after, found.failing) == ("new", CARD.id, "aborted", True)


@pytest.mark.parametrize(
    ("outcome", "would"), [("passed", "unchanged"), ("failed", "regression"), ("xfail", "expected")]
)
def test_other_versions_are_not_comparable_and_it_is_said_what_it_would_be(
    hold: Callable[..., Comparison], outcome: CheckOutcome, would: str
) -> None:
    outcomes = {CPU_FP32: {"dtypes": check(CPU_FP32, "dtypes", outcome)}}
    before = replace(OLD, outcomes={CPU_FP32: {"dtypes": "passed"}})
    found = only(hold([before], replace(NEW, outcomes=outcomes, versions=VERSIONS | {"torch": "2.14.0"})))
    assert found.name == "not-comparable"
    assert found.detail == f"torch 2.13.0 -> 2.14.0; {would} otherwise"
    assert found.failing == (outcome == "failed")


def test_other_hardware_is_not_comparable(hold: Callable[..., Comparison]) -> None:
    found = hold([OLD], replace(NEW, machine=CUDA))
    assert found.unchanged == 0
    assert {each.detail for each in found.transitions} == {"Some CPU -> Server CPU; unchanged otherwise"}
    assert set(found.counts) == {"not-comparable"}


@pytest.mark.parametrize("outcome", ["passed", "failed"])
def test_a_simulated_run_never_satisfies_an_entry_of_real_hardware(
    hold: Callable[..., Comparison], outcome: CheckOutcome
) -> None:
    now = ResultsBuilder({SIMULATED: {"dtypes": check(SIMULATED, "dtypes", outcome)}})
    found = only(hold([OLD_CARD], now))
    assert (found.name, found.cell, found.after) == ("absent", CARD.id, f"{outcome}, simulated")
    assert found.detail == "it ran only simulated, which proves nothing about the hardware"
    assert found.failing == (outcome == "failed")


def test_a_simulated_entry_whose_cell_runs_really_now_is_not_comparable(hold: Callable[..., Comparison]) -> None:
    before = ResultsBuilder({SIMULATED: {"dtypes": "passed"}}, simulated=["cuda:2"])
    found = only(hold([before], OLD_CARD))
    assert (found.name, found.cell) == ("not-comparable", SIMULATED.id)
    assert found.detail == "simulated on cuda:2 -> cuda:NVIDIA H100"


@pytest.mark.parametrize(
    ("profile", "detail"), [("cuda:2", None), ("cuda-t4", "simulated cuda:2 -> cuda-t4; unchanged otherwise")]
)
def test_a_simulated_entry_is_met_by_the_same_simulation_and_not_by_another(
    hold: Callable[..., Comparison], profile: str, detail: str | None
) -> None:
    before = ResultsBuilder({SIMULATED: {"dtypes": "passed"}}, simulated=["cuda:2"])
    found = hold([before], replace(before, simulated=[profile]))
    assert [each.detail for each in found.transitions] == ([detail] if detail else [])


def test_known_failures_that_fail_in_another_way_are_unchanged_with_a_note(hold: Callable[..., Comparison]) -> None:
    before = replace(OLD, outcomes={CPU_FP32: {"dtypes": "failed"}})
    other = check(CPU_FP32, "dtypes", "error", failure="out-of-memory")
    found = hold([before], replace(NEW, outcomes={CPU_FP32: {"dtypes": other}}))
    assert found.unchanged == 1
    assert found.notes[0] == (
        "known failures that fail in another way now: dtypes of llama.cpu.fp32.none.to (dtype -> out-of-memory)"
    )


def test_a_baseline_of_another_matrix_is_refused(tmp_path: Path) -> None:
    kept = baseline(tmp_path, OLD)
    with pytest.raises(ResultsError) as raised:
        compare(merge_written(tmp_path / "other", replace(NEW, matrix="release")), kept)
    assert str(raised.value) == (
        f"{kept.path}:1: a baseline of the matrix default, and these results are of release: give the baseline of "
        "those, or merge the results of the other matrix in"
    )


def test_runs_of_one_more_matrix_than_the_baseline_are_compared(hold: Callable[..., Comparison]) -> None:
    more = ResultsBuilder({CARD: {"dtypes": "passed"}}, machine=CUDA, matrix="cuda", name="cuda")
    assert hold([OLD], NEW, more).counts == {"new": 1}


def test_a_shard_is_told_to_be_merged_with_the_others(hold: Callable[..., Comparison]) -> None:
    skipped = {CPU_BF16: ("not requested", "not requested: in another shard")}
    first = ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}, skipped=skipped, name="one", shard="1/3")
    found = hold([OLD], first)
    assert found.notes[-1].startswith("the baseline has fewer than 3 runs")
    assert "these are parts of a run, without 2/3, 3/3: merge the results of all shards, then gate" in found.notes


@pytest.mark.parametrize("digest", ["d1", "d2"])
def test_shards_of_different_lists_of_cells_are_told(hold: Callable[..., Comparison], digest: str) -> None:
    first = ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}, name="one", shard="1/2")
    second = ResultsBuilder({CPU_BF16: {"dtypes": "passed"}}, name="two", shard="2/2", digest=digest)
    told = any("cut from 2 different lists of cells" in note for note in hold([OLD], first, second).notes)
    assert told == (digest == "d2")


def test_all_shards_together_are_as_good_as_one_run(hold: Callable[..., Comparison]) -> None:
    reason = ("not requested", "not requested: in another shard")
    first = ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}, skipped={CPU_BF16: reason}, name="one", shard="1/2")
    second = ResultsBuilder({CPU_BF16: {"dtypes": "passed"}}, skipped={CPU_FP32: reason}, name="two", shard="2/2")
    found = hold([OLD], first, second)
    assert (found.unchanged, found.transitions) == (2, ())
    assert not [note for note in found.notes if "parts" in note]


def test_the_worst_come_first(hold: Callable[..., Comparison]) -> None:
    now = replace(NEW, outcomes={CPU_FP32: {"a": "passed", "dtypes": "xfail"}, CPU_BF16: {"dtypes": "failed"}})
    assert [each.name for each in hold([OLD], now).transitions] == ["regression", "expected", "new"]
