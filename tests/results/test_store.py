"""Reading results back: also from a killed run, and with one sentence where a file is not what it should be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_llmdevice.errors import ResultsError
from pytest_llmdevice.results.run_header import SCHEMA
from pytest_llmdevice.results.store import read, read_file
from results.builder import CARD, CPU_BF16, CPU_FP32, ResultsBuilder

RUN = ResultsBuilder(
    {CPU_FP32: {"dtypes": "passed", "placement": "failed"}, CPU_BF16: {"dtypes": "passed"}},
    skipped={CARD: ("absent", "absent: no CUDA device")},
)


def changed(folder: Path, number: int, change: Callable[[dict[str, Any]], None]) -> Path:
    """The file of `RUN` with `change` made to line `number`, counted from 1."""
    path = RUN.write(folder)
    lines = path.read_text().splitlines()
    data = json.loads(lines[number - 1])
    change(data)
    lines[number - 1] = json.dumps(data)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    file = RUN.file(tmp_path)
    run, *rest = RUN.records()
    assert file.run == run
    assert [*file.planned.values(), *file.checks, *file.cells.values(), file.end] == sorted(
        rest, key=lambda record: ["planned", "check", "cell", "end"].index(record.model_dump()["type"])
    )


def test_each_record_is_one_line(tmp_path: Path) -> None:
    assert len(RUN.write(tmp_path).read_text().splitlines()) == len(RUN.records())


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = RUN.write(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"{") + 5])
    file = read_file(path)
    assert file is not None
    assert file.cut
    assert file.end is None
    assert len(file.cells) == 2


@pytest.mark.parametrize("length", [0, 50])
def test_a_run_that_was_killed_before_its_first_record_was_whole_is_not_passed_over(
    tmp_path: Path, length: int
) -> None:
    path = RUN.write(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ResultsError, match=r"aaaaaa\.jsonl:1: the run was killed before its first record was whole"):
        read_file(path)


def test_a_cut_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = RUN.write(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4][:20] + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(ResultsError) as raised:
        read(tmp_path)
    assert str(raised.value) == f"{path}:5: not JSON, the line was damaged or cut off: leave it out, or run again"


def test_a_newer_schema_says_to_update(tmp_path: Path) -> None:
    path = changed(tmp_path, 1, lambda data: data.update(schema=SCHEMA + 1))
    with pytest.raises(ResultsError) as raised:
        read(tmp_path)
    assert str(raised.value) == (
        f"{path}:1: written in schema {SCHEMA + 1}, and this version reads up to {SCHEMA}: update pytest-llmdevice"
    )


def _outcome(outcome: str) -> Callable[[dict[str, Any]], None]:
    return lambda data: data.update(outcome=outcome)


def _failed_skip(data: dict[str, Any]) -> None:
    data.update(cell=CARD.id)


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (2, lambda data: data.update(dtype="float16"), "the axes are those of llama.cpu.fp16.none.to, not of"),
        (2, lambda data: data.update(verdict="skip"), "the verdict 'skip' does not go with the cause None"),
        (5, _outcome("failed"), "the outcome 'failed' does not go with the failure None"),
        (5, _outcome("skipped"), "the outcome 'skipped' does not go with the cause None"),
        (5, _outcome("great"), "outcome: Input should be"),
        (5, lambda data: data.update(simulated=True), "llama.cpu.fp32.none.to is not simulated by its id"),
        (5, lambda data: data.update(surprise=1), "surprise: Extra inputs are not permitted"),
        (5, lambda data: data.update(cell="gpt2.cpu.fp32.none.to"), "no line before it plans that cell"),
        (5, _failed_skip, "llama.cuda0.bf16.none.to is passed, and was not to run: absent: no CUDA device"),
        (3, lambda data: data.update(cell=CPU_FP32.id, dtype="float32"), "is planned a second time"),
        (9, lambda data: data.update(cell=CPU_FP32.id), "is finished a second time"),
        (1, lambda data: data.update(run="../../elsewhere"), "run: String should match pattern"),
        (1, lambda data: data.update(shard="many"), "shard: String should match pattern"),
        (1, lambda data: data.update(type="check"), "not the first record of a run"),
        (1, lambda data: data.update(type="baseline"), "this is a baseline and no run"),
    ],
)
def test_a_line_that_contradicts_itself_or_another_is_named(
    tmp_path: Path, number: int, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    path = changed(tmp_path, number, change)
    with pytest.raises(ResultsError) as raised:
        read(tmp_path)
    assert str(raised.value).startswith(f"{path}:{number}: ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08\x00\n", b"hello\n", b"[" * 100_000 + b"\n", b"\n", b"null\n"])
def test_a_file_of_something_else_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.jsonl"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match=r"other.jsonl:1: not .*: leave it out, or run again"):
        read(tmp_path)


def test_a_folder_without_results_and_one_that_is_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no results here; run pytest with --llm-matrix --llm-results"):
        read(tmp_path)
    with pytest.raises(ResultsError, match="no such file or folder"):
        read(tmp_path / "missing")


def test_one_run_in_two_folders_is_read_once_under_any_name(tmp_path: Path) -> None:
    path = RUN.write(tmp_path / "a")
    (tmp_path / "b").mkdir()
    shutil.copy(path, tmp_path / "b" / "renamed.jsonl")
    assert [file.run.run for file in read([tmp_path / "a", tmp_path / "b", path])] == [RUN.name]


def test_of_a_run_and_its_copy_from_when_it_still_ran_the_longer_one_counts(tmp_path: Path) -> None:
    path = RUN.write(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / path.name).write_bytes(path.read_bytes()[:-100])
    for order in ("ab", "ba"):
        (file,) = read([tmp_path / name for name in order])
        assert file.end is not None


def test_two_files_of_one_run_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    first = RUN.write(tmp_path / "a")
    second = changed(tmp_path / "b", 5, lambda data: data.update(seconds=9.0))
    with pytest.raises(ResultsError) as raised:
        read([tmp_path / "a", tmp_path / "b"])
    assert str(raised.value) == (
        f"{second}: the run {RUN.name} is in {first} too, with other records; one of the two files was changed by "
        "hand: leave it out"
    )
