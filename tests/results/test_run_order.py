"""Runs are in the order in which they were made, whatever a clock said."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_llmdevice.errors import ResultsError
from pytest_llmdevice.results.merged_results import merge_runs
from pytest_llmdevice.results.order import in_order, latest_run
from pytest_llmdevice.results.run_header import Commit
from pytest_llmdevice.results.store import read, read_file
from results.builder import CPU_FP32, ResultsBuilder

EARLIER, LATER = "2026-11-25T09:00:00+00:00", "2026-11-25T11:00:00+00:00"


def run(name: str, started: str, outcome: str = "passed", after: str = "") -> ResultsBuilder:
    return ResultsBuilder(
        {CPU_FP32: {"dtypes": outcome}},  # type: ignore[dict-item]
        name=name,
        started=started,
        after=after,
        commit=Commit(id=name.ljust(8, "0")),
    )


def test_a_clock_that_was_set_back_between_two_runs_changes_nothing(tmp_path: Path) -> None:
    run("first", LATER, "passed").write(tmp_path)
    run("second", EARLIER, "failed", after="first").write(tmp_path)
    merged = merge_runs(read(tmp_path))
    assert [made.run for made in merged.runs] == ["first", "second"]
    (view,) = merged.cells.values()
    assert view.outcome == "failed"


def test_runs_of_other_folders_are_ordered_by_their_time(tmp_path: Path) -> None:
    chain = [run("a", LATER), run("b", EARLIER, after="a"), run("other", "2026-11-25T10:00:00+00:00")]
    files = [each.file(tmp_path) for each in chain]
    assert [file.run.run for file in in_order(files)] == ["other", "a", "b"]


@pytest.mark.parametrize("loop", [("a", "b"), ("b", "a"), ("a", "a")])
def test_runs_that_name_each_other_are_ordered_all_the_same(tmp_path: Path, loop: tuple[str, str]) -> None:
    files = [run("a", EARLIER, after=loop[1]).file(tmp_path), run("b", LATER, after=loop[0]).file(tmp_path)]
    assert {file.run.run for file in in_order(files)} == {"a", "b"}


def test_the_latest_run_of_a_folder_is_known_and_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    assert latest_run(tmp_path) == ""
    run("first", LATER).write(tmp_path)
    run("second", EARLIER, after="first").write(tmp_path)
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "other.jsonl").write_bytes(b"{}\n")
    assert latest_run(tmp_path) == "second"


@pytest.mark.parametrize("moment", ["yesterday", "", "2026-13-01T00:00:00+00:00", "2026-11-25T10:00:00+05:00", "2026"])
def test_a_time_that_is_none_or_not_in_utc_is_refused(tmp_path: Path, moment: str) -> None:
    path = run("odd", EARLIER).write(tmp_path)
    path.write_text(path.read_text().replace(EARLIER, moment, 1))
    with pytest.raises(ResultsError, match=r"odd\.jsonl:1: started: "):
        read_file(path)
