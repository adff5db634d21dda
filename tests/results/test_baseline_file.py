"""The file of a baseline: how it is laid out, and one sentence where it is not what it should be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_llmdevice.errors import ResultsError
from pytest_llmdevice.results.baseline import BASELINE_SCHEMA, read_baseline
from pytest_llmdevice.results.merged_results import merge_runs
from pytest_llmdevice.results.store import read
from pytest_llmdevice.results.update import update
from results.builder import CARD, CPU_BF16, CPU_FP32, CUDA, ResultsBuilder

RUN = ResultsBuilder(
    {CPU_FP32: {"placement": "passed", "dtypes": "xfail", "tied": "skipped"}, CPU_BF16: {"dtypes": "passed"}},
    name="cpu",
)
CARD_RUN = ResultsBuilder({CARD: {"dtypes": "passed"}}, machine=CUDA, name="card")


def written(folder: Path) -> Path:
    """A baseline of one head, two environments, three cells and four checks: ten lines."""
    RUN.write(folder / "results")
    CARD_RUN.write(folder / "results")
    path = folder / "baseline.jsonl"
    update(merge_runs(read(folder / "results")), path, environment={}, today="2026-11-25")
    return path


def test_the_file_reads_from_top_to_bottom(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in written(tmp_path).read_text().splitlines()]
    assert lines[0] == {
        "type": "baseline",
        "schema": BASELINE_SCHEMA,
        "matrices": [{"name": "default", "digest": "d1", "cells": 2}],
        "written": "2026-11-25",
        "commit": {"id": "0123456789abcdef"},
        "environments": 2,
        "cells": 3,
        "checks": 4,
    }
    assert [(line["type"], line.get("cell"), line.get("check")) for line in lines[1:]] == [
        ("environment", None, None),
        ("environment", None, None),
        ("cell", CPU_BF16.id, None),
        ("check", CPU_BF16.id, "dtypes"),
        ("cell", CPU_FP32.id, None),
        ("check", CPU_FP32.id, "dtypes"),
        ("check", CPU_FP32.id, "placement"),
        ("cell", CARD.id, None),
        ("check", CARD.id, "dtypes"),
    ]


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    path = written(tmp_path)
    found = read_baseline(path)
    assert found.checks["builtin", CPU_FP32.id, "dtypes"].outcome == "xfail"
    assert found.cells["builtin", CARD.id].load_seconds == (0.2,)
    assert found.environments[found.cells["builtin", CARD.id].environment].hardware == "cuda:NVIDIA H100"


def test_a_file_with_the_line_ends_of_windows_is_read(tmp_path: Path) -> None:
    path = written(tmp_path)
    before = read_baseline(path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_baseline(path) == before


def _drop(number: int) -> Callable[[list[bytes]], None]:
    return lambda lines: lines.__delitem__(number - 1)


def _again(number: int) -> Callable[[list[bytes]], None]:
    return lambda lines: lines.insert(number, lines[number - 1])


def _change(number: int, **values: Any) -> Callable[[list[bytes]], None]:
    def change(lines: list[bytes]) -> None:
        lines[number - 1] = json.dumps(json.loads(lines[number - 1]) | values).encode() + b"\n"

    return change


def _put(number: int, text: bytes) -> Callable[[list[bytes]], None]:
    return lambda lines: lines.__setitem__(number - 1, text)


@pytest.mark.parametrize(
    ("change", "number", "message"),
    [
        (_put(10, b'{"type":"check","ce'), 10, "the file was cut off in the middle of this line"),
        (_drop(10), 1, "says that 4 checks follow, and 3 do; the file was cut off or changed by hand"),
        (_change(1, cells=7), 1, "says that 7 cells follow, and 3 do"),
        (_put(5, b"rubbish\n"), 5, "not JSON, the line was damaged or cut off"),
        (_put(5, b"<<<<<<< HEAD\n"), 5, "a conflict of a git merge is left here; take one side whole"),
        (_put(6, b"\xff\xfe\n"), 6, "not JSON, the line was damaged or cut off"),
        (_put(1, b"rubbish\n"), 1, "not JSON, the line was damaged or cut off; this is no baseline"),
        (_put(1, b"[]\n"), 1, "not the head of a baseline"),
        (_put(1, b"\n"), 1, "not JSON, the line was damaged or cut off"),
        (_change(1, schema=BASELINE_SCHEMA + 1), 1, f"written in schema {BASELINE_SCHEMA + 1}, and this version reads"),
        (_change(1, schema="1"), 1, "not the head of a baseline"),
        (_change(1, type="run"), 1, "these are results and no baseline"),
        (_again(5), 6, "dtypes of llama.cpu.bf16.none.to of builtin is there a second time"),
        (_again(4), 5, "llama.cpu.bf16.none.to of builtin is there a second time"),
        (_again(2), 3, "environment 0 is there a second time"),
        (_again(1), 2, "the head is there a second time"),
        (_change(5, environment=7), 5, "points to environment 7, which no line before it describes"),
        (_change(4, environment=-1), 4, "environment: Input should be greater than or equal to 0"),
        (_change(5, outcome="failed"), 5, "the outcome 'failed' does not go with the failure None"),
        (_change(5, failure="dtype"), 5, "the outcome 'passed' does not go with the failure 'dtype'"),
        (_change(5, outcome="skipped"), 5, "outcome: Input should be"),
        (_change(5, cell="<b>"), 5, "cell: String should match pattern"),
        (_change(5, cell="gpt2.cpu.fp32.none.to"), 5, "dtypes is a check of gpt2.cpu.fp32.none.to, and no line before"),
        (_change(5, surprise=1), 5, "surprise: Extra inputs are not permitted"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_one_sentence_and_nothing_is_overwritten(
    tmp_path: Path, change: Callable[[list[bytes]], None], number: int, message: str
) -> None:
    path = written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    change(lines)
    path.write_bytes(b"".join(lines))
    damaged = path.read_bytes()
    with pytest.raises(ResultsError) as raised:
        read_baseline(path)
    assert str(raised.value).startswith(f"{path}:{number}: ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(ResultsError):
        update(merge_runs(read(tmp_path / "results")), path, environment={})
    assert path.read_bytes() == damaged


def test_a_file_that_is_missing_and_one_that_is_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="there is no baseline yet; write one with --llm-baseline-update"):
        read_baseline(tmp_path / "missing.jsonl")
    with pytest.raises(ResultsError, match="the baseline cannot be read: "):
        read_baseline(tmp_path)


def test_an_empty_file_is_no_baseline(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.touch()
    with pytest.raises(ResultsError, match=r"empty.jsonl:1: not JSON, .*; this is no baseline"):
        read_baseline(path)
