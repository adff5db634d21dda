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


def report(*arguments: object) -> Result:
    return CliRunner().invoke(command, ["report", *map(str, arguments)])


def test_markdown_goes_to_standard_output(results: Path) -> None:
    found = report(results)
    assert found.exit_code == 0
    assert found.stdout.startswith("## ")


@pytest.mark.parametrize("arguments", [["-f", "json"], ["--json"]])
def test_json_goes_to_standard_output(results: Path, arguments: list[str]) -> None:
    assert json.loads(report(results, *arguments).stdout)["counts"]["real"] == {"failed": 1, "passed": 1}


def test_several_reports_are_written_at_once(results: Path, tmp_path: Path) -> None:
    found = report(results, "--report", f"md:{tmp_path / 'a.md'}", "--report", f"json:{tmp_path / 'b.json'}")
    assert found.exit_code == 0
    assert found.stdout == ""
    assert (tmp_path / "a.md").read_text().startswith("## ")
    assert json.loads((tmp_path / "b.json").read_text())["schema"] == 1


def test_the_name_of_the_file_says_the_format(results: Path, tmp_path: Path) -> None:
    assert report(results, "-o", tmp_path / "x.json").exit_code == 0
    assert json.loads((tmp_path / "x.json").read_text())["schema"] == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-f", "pdf"], "unknown format 'pdf'"),
        (["-f", "html"], "-f html needs a file"),
        (["-f", "md", "--json"], "--json and -f md contradict each other"),
        (["--report", "md"], "give a format and a path"),
        (["nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    results: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    target = tmp_path / "untouched.md"
    target.write_text("old")
    found = report(results, "--report", f"md:{target}", *arguments)
    assert found.exit_code == 2
    assert says in found.output
    assert target.read_text() == "old"
