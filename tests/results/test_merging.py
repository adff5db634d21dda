"""Results of several machines in one folder: copied as they are, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_llmdevice.errors import ResultsError
from pytest_llmdevice.results.merge import merge, mixtures
from pytest_llmdevice.results.run_header import Commit
from results.builder import CARD, CPU_BF16, CPU_FP32, CUDA, SIMULATED, ResultsBuilder

LAPTOP_RUN = ResultsBuilder(
    {CPU_FP32: {"dtypes": "passed"}, SIMULATED: {"dtypes": "passed"}},
    skipped={CPU_BF16: ("not requested", "not requested: --llm-cell leaves it out")},
    simulated=["cuda:1"],
    name="laptop",
)
CARD_RUN = ResultsBuilder({CARD: {"dtypes": "failed"}}, machine=CUDA, name="card", matrix="cuda")


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    LAPTOP_RUN.write(tmp_path / "a")
    CARD_RUN.write(tmp_path / "b")
    return [tmp_path / "a", tmp_path / "b"]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_files_are_copied_byte_by_byte(tmp_path: Path, folders: list[Path]) -> None:
    merge(folders, tmp_path / "all")
    assert names(tmp_path / "all") == {"laptop.jsonl", "card.jsonl"}
    assert (tmp_path / "all" / "card.jsonl").read_bytes() == (tmp_path / "b" / "card.jsonl").read_bytes()


def test_a_file_of_a_killed_run_is_copied_with_its_half_record(tmp_path: Path, folders: list[Path]) -> None:
    path = tmp_path / "b" / "card.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    merged = merge(folders, tmp_path / "all")
    assert (tmp_path / "all" / "card.jsonl").read_bytes() == path.read_bytes()
    assert "card.jsonl: the last record was cut off when the run was killed; it is left out" in merged.notes


def test_a_second_time_changes_nothing(tmp_path: Path, folders: list[Path]) -> None:
    merge(folders, tmp_path / "all")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "all").iterdir()}
    merge([*folders, tmp_path / "all"], tmp_path / "all")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "all").iterdir()} == before


def test_a_run_under_another_name_gets_its_own(tmp_path: Path, folders: list[Path]) -> None:
    (tmp_path / "b" / "card.jsonl").rename(tmp_path / "b" / "artifact.jsonl")
    merge(folders, tmp_path / "all")
    assert names(tmp_path / "all") == {"laptop.jsonl", "card.jsonl"}


@pytest.mark.parametrize("other", ["other.jsonl", "notes.txt"])
def test_a_folder_that_holds_anything_else_is_refused_unless_forced(
    tmp_path: Path, folders: list[Path], other: str
) -> None:
    replace(LAPTOP_RUN, name="other").write(tmp_path / "all")
    (tmp_path / "all" / "other.jsonl").rename(tmp_path / "all" / other)
    with pytest.raises(
        ResultsError, match=rf"all: has {other}, which is none of the runs to merge: choose another folder"
    ):
        merge(folders, tmp_path / "all")
    assert names(tmp_path / "all") == {other}
    merged = merge(folders, tmp_path / "all", force=True)
    assert names(tmp_path / "all") == {other, "laptop.jsonl", "card.jsonl"}
    assert len(merged.runs) == (3 if other.endswith(".jsonl") else 2)


def test_the_same_run_with_other_records_in_the_folder_is_refused_even_when_forced(
    tmp_path: Path, folders: list[Path]
) -> None:
    replace(LAPTOP_RUN, outcomes={CPU_FP32: {"dtypes": "failed"}}).write(tmp_path / "all")
    with pytest.raises(ResultsError, match=r"all/laptop.jsonl: differs from .*a/laptop.jsonl, which is the same run"):
        merge(folders, tmp_path / "all", force=True)
    assert names(tmp_path / "all") == {"laptop.jsonl"}


def test_a_copy_from_when_the_run_was_not_over_is_completed(tmp_path: Path, folders: list[Path]) -> None:
    whole = (tmp_path / "a" / "laptop.jsonl").read_bytes()
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "laptop.jsonl").write_bytes(whole[:-200])
    merge(folders, tmp_path / "all")
    assert (tmp_path / "all" / "laptop.jsonl").read_bytes() == whole


def test_one_bad_input_writes_nothing(tmp_path: Path, folders: list[Path]) -> None:
    (tmp_path / "b" / "bad.jsonl").write_text("rubbish\n")
    with pytest.raises(ResultsError, match=r"bad\.jsonl:1: not JSON"):
        merge(folders, tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path, folders: list[Path]) -> None:
    (tmp_path / "all").touch()
    with pytest.raises(ResultsError, match="all: is a file; give a folder for the results"):
        merge(folders, tmp_path / "all")


def test_different_matrices_commits_and_changed_trees_are_named(tmp_path: Path, folders: list[Path]) -> None:
    replace(
        LAPTOP_RUN, name="later", started="2027-01-01T00:00:00+00:00", commit=Commit(id="f" * 16, dirty=True)
    ).write(tmp_path / "a")
    assert list(mixtures(merge(folders, tmp_path / "all"))) == [
        "the runs are of 2 matrices, and all of their cells are here: cuda, default",
        "the runs are of 2 commits, the latest ffffffffff: a check counts as the latest run of each machine has it",
        "1 of 3 runs were of a tree with changes that are in no commit",
    ]


def test_parts_of_different_lists_of_cells_are_named(tmp_path: Path) -> None:
    def parts(folder: str, second: str, *, matrix: str = "default") -> list[str]:
        first = ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}, name="one", shard="1/2")
        other = ResultsBuilder({CPU_BF16: {"dtypes": "passed"}}, name="two", shard="2/2", digest=second, matrix=matrix)
        for part in (first, other):
            part.write(tmp_path / folder)
        merged = merge([tmp_path / folder], tmp_path / f"{folder}-all")
        return [note for note in mixtures(merged) if "parts" in note]

    assert parts("alike", "d1") == []
    [note] = parts("unlike", "d2")
    assert note.startswith("the 2 parts of default were cut from 2 different lists of cells")
    assert parts("other", "d2", matrix="release") == []
