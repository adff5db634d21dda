from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from results.builder import CPU_BF16, CPU_FP32, ResultsBuilder

from pytest_llmdevice.cli.command import command


@pytest.fixture
def results(tmp_path: Path) -> Path:
    ResultsBuilder({CPU_FP32: {"dtypes": "passed"}, CPU_BF16: {"dtypes": "failed"}}).write(tmp_path / "results")
    return tmp_path / "results"


def show(*arguments: object) -> Result:
    return CliRunner().invoke(command, ["show", *map(str, arguments)])


def test_the_grid_is_shown(results: Path) -> None:
    found = show(results)
    assert found.exit_code == 0
    assert "llama  .    F\n" in found.output
    assert "\x1b" not in found.output


def test_the_grid_can_be_asked_for(results: Path) -> None:
    assert "dtype  cpu\nfp32   .\nbf16   F\n" in show(results, "--grid", "dtype/device").output


def test_no_line_is_wider_than_asked_for(results: Path) -> None:
    lines = show(results, "--width", 40).output.split("\n")
    assert max(len(line) for line in lines if "https://" not in line) <= 40


def test_json_has_every_cell(results: Path) -> None:
    found = json.loads(show(results, "--json").output)
    assert [cell["outcome"] for cell in found["cells"]] == ["passed", "failed"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--grid", "model"], "grid 'model': name the axes of the rows"),
        (["--baseline", "nowhere.jsonl"], "nowhere.jsonl: there is no baseline yet"),
        (["nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(results: Path, arguments: list[str], says: str) -> None:
    found = show(results, *arguments)
    assert found.exit_code == 2
    assert says in found.output
    assert "Traceback" not in found.output
