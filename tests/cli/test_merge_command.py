"""`llmdevice merge`, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from results.builder import CARD, CPU_FP32, CUDA, ResultsBuilder

from pytest_llmdevice.cli.command import command


def merge(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, ["merge", *map(str, arguments)])


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    skipped = {CARD: ("absent", "absent: no CUDA device")}
    ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}, skipped=skipped, name="laptop").write(tmp_path / "a")
    ResultsBuilder({CPU_FP32: {"dtypes": "failed"}}, skipped=skipped, name="server", machine=CUDA).write(tmp_path / "b")
    return tmp_path / "a", tmp_path / "b"


def test_it_says_what_is_together_now(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    found = merge(*folders, "-o", tmp_path / "all")
    assert found.exit_code == 0
    assert found.output.splitlines() == [
        "2 runs:",
        "  laptop: default, builtin, on Some CPU",
        "  server: default, builtin, on Server CPU; cuda:0 NVIDIA H100",
        "target builtin, the loader of pytest-llmdevice itself: no code of a project was tested",
        "2 cells: 1 failed, 1 not run",
        "not run anywhere:",
        "  1 on cuda:0: absent: no CUDA device",
        "1 conflict, the worse outcome counts:",
        "  llama.cpu.fp32.none.to dtypes: failed in server, passed in laptop: machines or versions differ",
        f"written to {tmp_path / 'all'}",
    ]


def test_json_has_the_same(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    found = json.loads(merge(*folders, "-o", tmp_path / "all", "--json").output)
    assert found["output"] == str(tmp_path / "all")
    assert [run["run"] for run in found["runs"]] == ["laptop", "server"]
    assert found["outcomes"] == {"failed": 1, "never ran": 1}
    assert found["never_ran"] == [{"device": "cuda:0", "reason": "absent: no CUDA device", "cells": [CARD.id]}]
    assert found["conflicts"][0]["samples"] == [
        {"run": "server", "outcome": "failed"},
        {"run": "laptop", "outcome": "passed"},
    ]


def test_what_is_wrong_is_one_sentence_and_exit_code_2(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    found = merge(*folders, tmp_path / "missing", "-o", tmp_path / "all")
    assert found.exit_code == 2
    assert found.stderr == (
        f"Error: {tmp_path / 'missing'}: no such file or folder; give the folder that --llm-results wrote\n"
    )
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize("arguments", [[], ["a"], ["-o", "all"]])
def test_inputs_and_an_output_are_needed(arguments: list[str]) -> None:
    assert merge(*arguments).exit_code == 2
