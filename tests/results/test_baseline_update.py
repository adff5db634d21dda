"""Writing a baseline: what is refused, and what an update keeps of the old one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_llmdevice.errors import ConfigurationError, ResultsError
from pytest_llmdevice.results.baseline import Baseline, read_baseline
from pytest_llmdevice.results.merged_results import merge_runs
from pytest_llmdevice.results.run_header import Commit
from pytest_llmdevice.results.store import read
from pytest_llmdevice.results.update import FORCE_WORDS, update
from results.builder import CARD, CPU_BF16, CPU_FP32, CUDA, SIMULATED, VERSIONS, ResultsBuilder

GOOD = ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}, name="good")


def updated(
    tmp_path: Path,
    *runs: ResultsBuilder,
    folder: str = "results",
    force: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> Baseline:
    for each in runs:
        each.write(tmp_path / folder)
    merged = merge_runs(read(tmp_path / folder))
    return update(merged, tmp_path / "b.jsonl", force=force, environment=environment or {}, today="2026-11-25")


def entries(baseline: Baseline) -> dict[tuple[str, str], str]:
    return {(cell, check): line.outcome for (_, cell, check), line in baseline.checks.items()}


def test_what_is_written_is_returned(tmp_path: Path) -> None:
    written = updated(tmp_path, GOOD)
    assert read_baseline(tmp_path / "b.jsonl") == written


def test_the_same_results_write_the_same_file(tmp_path: Path) -> None:
    updated(tmp_path, GOOD)
    before = (tmp_path / "b.jsonl").read_bytes()
    updated(tmp_path)
    assert (tmp_path / "b.jsonl").read_bytes() == before


FAILING = (
    "1 check failed, such as dtypes of llama.cpu.fp32.none.to (hollow): fix or declare them with [[expect]], or "
    "force 'failing' to have them known as failing"
)
UNSTABLE = (
    "one commit gave different results 1 time, such as the tokens of llama.cpu.fp32.none.to: make it deterministic, or "
    "force 'unstable' to take the worse outcome and the last tokens"
)
REFUSED = {
    "ci": ([GOOD], {"CI": "true"}, "CI is set: update the baseline on a machine of yours and commit it, or force 'ci'"),
    "dirty": (
        [replace(GOOD, commit=Commit(id="0123", dirty=True))],
        {},
        "1 run of a tree with changes: commit them and run again, or force 'dirty'",
    ),
    "failing": ([replace(GOOD, outcomes={CPU_FP32: {"dtypes": "hollow"}})], {}, FAILING),
    "unstable": ([GOOD, replace(GOOD, name="again", changes={CPU_FP32: {"tokens": ((9,),)}})], {}, UNSTABLE),
}


@pytest.mark.parametrize("word", REFUSED)
def test_it_is_refused_unless_forced(tmp_path: Path, word: str) -> None:
    runs, environment, message = REFUSED[word]
    with pytest.raises(ResultsError) as raised:
        updated(tmp_path, *runs, environment=environment)
    assert str(raised.value) == f"{tmp_path / 'b.jsonl'}: not updated: {message}"
    assert not (tmp_path / "b.jsonl").exists()
    assert updated(tmp_path, force=(word,), environment=environment).checks


def test_an_outcome_that_changes_from_run_to_run_is_unstable(tmp_path: Path) -> None:
    again = replace(GOOD, name="again", outcomes={CPU_FP32: {"dtypes": "xfail"}})
    with pytest.raises(ResultsError, match="different results 1 time, such as dtypes of llama"):
        updated(tmp_path, GOOD, again)


def test_several_refusals_are_a_line_each(tmp_path: Path) -> None:
    run = replace(GOOD, outcomes={CPU_FP32: {"dtypes": "failed"}}, commit=Commit(id="0123", dirty=True))
    with pytest.raises(ResultsError) as raised:
        updated(tmp_path, run, environment={"CI": "1"})
    assert len(str(raised.value).splitlines()) == 4


@pytest.mark.parametrize("value", ["", "0", "false", "False"])
def test_a_variable_that_says_no_is_no_ci(tmp_path: Path, value: str) -> None:
    assert updated(tmp_path, GOOD, environment={"CI": value}).checks


def test_a_run_that_was_killed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"1 check failed, such as llama.cpu.bf16.none.to \(aborted\)"):
        updated(tmp_path, replace(GOOD, unfinished=[CPU_BF16], killed=True))


def test_a_run_of_nothing_is_refused_and_cannot_be_forced(tmp_path: Path) -> None:
    nothing = ResultsBuilder({}, skipped={CARD: ("absent", "absent: no card")})
    with pytest.raises(ResultsError, match=r"no cell ran: run the matrix on a machine that has its devices"):
        updated(tmp_path, nothing, force=tuple(FORCE_WORDS))


def test_an_unknown_word_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"unknown word to force 'drity'; did you mean 'dirty'"):
        updated(tmp_path, GOOD, force=("drity",))


def test_failures_that_the_old_baseline_knows_need_no_force(tmp_path: Path) -> None:
    failing = replace(GOOD, outcomes={CPU_FP32: {"dtypes": "failed"}})
    updated(tmp_path, failing, force=("failing",))
    assert entries(updated(tmp_path)) == {(CPU_FP32.id, "dtypes"): "failed"}


def test_skipped_checks_are_no_entries(tmp_path: Path) -> None:
    run = replace(GOOD, outcomes={CPU_FP32: {"dtypes": "passed", "tied": "skipped"}})
    assert entries(updated(tmp_path, run)) == {(CPU_FP32.id, "dtypes"): "passed"}


@pytest.mark.parametrize("cause", ["not requested", "absent", "unusable", "unsupported"])
def test_cells_that_did_not_run_here_keep_their_entries(tmp_path: Path, cause: str) -> None:
    updated(tmp_path, GOOD, ResultsBuilder({CARD: {"dtypes": "passed"}}, machine=CUDA, name="card"))
    partial = replace(GOOD, outcomes={CPU_FP32: {"dtypes": "xfail"}}, skipped={CARD: (cause, f"{cause}: reason")})
    found = updated(tmp_path, partial, folder="partial")
    assert entries(found) == {(CPU_FP32.id, "dtypes"): "xfail", (CARD.id, "dtypes"): "passed"}
    line = found.checks["builtin", CARD.id, "dtypes"]
    assert found.environments[line.environment].hardware == "cuda:NVIDIA H100"
    assert found.notes == ("kept as they were: 1 cell that did not run here",)


def test_cells_that_are_not_offered_any_more_are_dropped_only_by_force(tmp_path: Path) -> None:
    updated(tmp_path, replace(GOOD, outcomes={**GOOD.outcomes, CPU_BF16: {"dtypes": "passed"}}))
    withdrawn = replace(GOOD, skipped={CPU_BF16: ("not offered", "not offered: it knows no bfloat16")})
    with pytest.raises(ResultsError, match=f"1 check of the old baseline did not run, such as dtypes of {CPU_BF16.id}"):
        updated(tmp_path, withdrawn, folder="smaller")
    found = updated(tmp_path, withdrawn, folder="forced", force=("vanished",))
    assert entries(found) == {(CPU_FP32.id, "dtypes"): "passed"}
    assert found.notes == (f"dropped: 1 cell that the code under test does not offer, such as {CPU_BF16.id}",)


def test_cells_that_the_matrix_does_not_have_are_dropped_and_it_is_said(tmp_path: Path) -> None:
    updated(tmp_path, replace(GOOD, outcomes={**GOOD.outcomes, CPU_BF16: {"dtypes": "passed"}}))
    found = updated(tmp_path, GOOD, folder="smaller")
    assert entries(found) == {(CPU_FP32.id, "dtypes"): "passed"}
    assert found.notes == ("dropped: 1 cell that the matrix does not have, such as llama.cpu.bf16.none.to",)


def test_other_targets_keep_their_entries(tmp_path: Path) -> None:
    updated(tmp_path, GOOD)
    found = updated(tmp_path, replace(GOOD, target="mine:loader"), folder="mine")
    assert {target for target, _, _ in found.checks} == {"builtin", "mine:loader"}


def test_a_check_that_did_not_run_in_a_cell_that_did_is_refused_unless_forced(tmp_path: Path) -> None:
    updated(tmp_path, replace(GOOD, outcomes={CPU_FP32: {"dtypes": "passed", "tied": "passed"}}))
    with pytest.raises(ResultsError, match="1 check of the old baseline did not run, such as tied of llama"):
        updated(tmp_path, GOOD, folder="fewer")
    assert entries(updated(tmp_path, folder="fewer", force=("vanished",))) == {(CPU_FP32.id, "dtypes"): "passed"}


def test_a_simulated_cell_does_not_take_the_place_of_the_real_one(tmp_path: Path) -> None:
    updated(tmp_path, ResultsBuilder({CARD: {"dtypes": "passed"}}, machine=CUDA, name="card"))
    simulated_on = ResultsBuilder({SIMULATED: {"dtypes": "xfail"}, CPU_FP32: {"dtypes": "passed"}}, name="simulated")
    found = updated(tmp_path, simulated_on, folder="simulated")
    assert entries(found) == {(CARD.id, "dtypes"): "passed", (CPU_FP32.id, "dtypes"): "passed"}


def test_a_real_cell_takes_the_place_of_the_simulated_one(tmp_path: Path) -> None:
    updated(tmp_path, ResultsBuilder({SIMULATED: {"dtypes": "passed"}}, name="simulated"))
    found = updated(tmp_path, ResultsBuilder({CARD: {"dtypes": "passed"}}, machine=CUDA, name="card"), folder="real")
    assert entries(found) == {(CARD.id, "dtypes"): "passed"}


def test_a_new_version_of_a_library_changes_the_line_of_its_environment_and_no_entry(tmp_path: Path) -> None:
    runs = [GOOD, ResultsBuilder({CARD: {"dtypes": "passed"}}, machine=CUDA, name="card")]
    updated(tmp_path, *runs)
    before = (tmp_path / "b.jsonl").read_text().splitlines()
    newer = [replace(run, versions=VERSIONS | {"torch": "2.14.0"}) for run in runs]
    updated(tmp_path, *newer, folder="newer")
    after = (tmp_path / "b.jsonl").read_text().splitlines()
    differing = [old for old, new in zip(before, after, strict=True) if old != new]
    assert [line.partition(",")[0] for line in differing] == ['{"type":"environment"', '{"type":"environment"']


def test_a_baseline_of_another_matrix_is_replaced_only_where_told_so(tmp_path: Path) -> None:
    updated(tmp_path, GOOD)
    other = ResultsBuilder({CARD: {"dtypes": "passed"}}, machine=CUDA, matrix="cuda", name="card")
    with pytest.raises(
        ResultsError, match=r"a baseline of the matrix default, .*to write it anew, force 'other-matrix'"
    ):
        updated(tmp_path, other, folder="other")
    found = updated(tmp_path, folder="other", force=("other-matrix",))
    assert entries(found) == {(CARD.id, "dtypes"): "passed"}
    assert [info.name for info in found.head.matrices] == ["cuda"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    GOOD.write(tmp_path / "results")
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match=r"cannot be written: .*nothing was changed"):
        update(merge_runs(read(tmp_path / "results")), tmp_path / "file" / "b.jsonl", environment={})


def test_nothing_but_the_baseline_is_left_behind(tmp_path: Path) -> None:
    updated(tmp_path, GOOD)
    updated(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"results", "b.jsonl"}
