from __future__ import annotations

import json
from pathlib import Path

import pytest
from results.builder import CPU_FP32, ResultsBuilder

from pytest_llmdevice.errors import ConfigurationError, ResultsError
from pytest_llmdevice.report.model import ReportModel
from pytest_llmdevice.report.outputs import Output, is_summary
from pytest_llmdevice.results.merged_results import merge_runs


@pytest.fixture
def report(tmp_path: Path) -> ReportModel:
    run = ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}).file(tmp_path / "results")
    return ReportModel.of(merge_runs([run]))


def test_an_output_is_a_format_and_a_path() -> None:
    assert Output.parse("json:folder/with:colon.json") == Output("json", Path("folder/with:colon.json"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("md", "report 'md': give a format and a path, as in md:PATH"),
        ("md:", "give a format and a path, as in md:PATH"),
        ("report.html", "give a format and a path"),
        ("markdown:x", "unknown format 'markdown'"),
        ("htm:x", "did you mean 'html'?"),
    ],
)
def test_an_output_that_cannot_be_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Output.parse(text)
    assert says in str(refused.value)


@pytest.mark.parametrize("name", ["md", "html", "json"])
def test_a_report_is_written_with_its_folders(tmp_path: Path, report: ReportModel, name: str) -> None:
    path = tmp_path / "new" / "folder" / f"report.{name}"
    Output.parse(f"{name}:{path}").write(report, environment={})
    assert "llama" in path.read_text("utf-8")
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_report_takes_the_place_of_an_older_one(tmp_path: Path, report: ReportModel) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    Output("json", path).write(report, environment={})
    assert json.loads(path.read_text())["schema"] == 1


def test_what_goes_to_the_summary_of_a_job_is_appended(tmp_path: Path, report: ReportModel) -> None:
    path = tmp_path / "summary"
    path.write_text("an earlier step\n")
    Output("md", path).write(report, environment={"GITHUB_STEP_SUMMARY": str(path)})
    assert path.read_text().startswith("an earlier step\n\n## ")


def test_another_file_than_the_summary_is_not_appended_to(tmp_path: Path) -> None:
    assert not is_summary(tmp_path / "a", {"GITHUB_STEP_SUMMARY": str(tmp_path / "b")})
    assert not is_summary(tmp_path, {"GITHUB_STEP_SUMMARY": ""})


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, report: ReportModel) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError) as refused:
        Output("md", tmp_path / "file" / "x.md").write(report, environment={})
    assert str(tmp_path / "file" / "x.md") in str(refused.value)


def test_a_summary_that_cannot_be_written_is_named(tmp_path: Path, report: ReportModel) -> None:
    with pytest.raises(ResultsError) as refused:
        Output("md", tmp_path).write(report, environment={"GITHUB_STEP_SUMMARY": str(tmp_path)})
    assert str(tmp_path) in str(refused.value)
