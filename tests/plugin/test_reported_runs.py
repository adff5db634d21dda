"""What a run shows and writes for people, and what other reporters carry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

TESTS = """
def test_good(llm_cell): pass
def test_bad(llm_cell): assert llm_cell.dtype == "float32", "a half"
"""

FLAGS = ("--llm-matrix", "--llm-matrix-file=two.toml")

CELLS = {"llama.cpu.fp32.none.to", "llama.cpu.bf16.none.to"}


@pytest.fixture
def reported(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with a test that fails in one of two cells."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    project.makepyfile(test_own=TESTS)
    return project


def test_the_grid_shows_which_cell_failed(reported: pytest.Pytester) -> None:
    result = reported.runpytest(*FLAGS, "test_own.py")
    result.stdout.fnmatch_lines(
        [
            "=* llm matrix two.toml =*",
            "2 cells: 1 failed, 1 partly run",
            "model  fp32 bf16",
            "llama *p* *F",
            "*F failed*p partly run",
            "1 problem",
            "1. failed in 1 cell: test_own::test_bad",
            "*AssertionError: a half*",
        ]
    )


def test_the_axes_of_the_grid_can_be_chosen(reported: pytest.Pytester) -> None:
    result = reported.runpytest(*FLAGS, "--llm-grid=dtype/model", "test_own.py")
    result.stdout.fnmatch_lines(["dtype  llama", "fp32 *p", "bf16 *F"])


def test_the_grid_has_colour_only_where_pytest_has(reported: pytest.Pytester) -> None:
    assert "\x1b[" not in reported.runpytest(*FLAGS, "test_own.py").stdout.str()
    text = reported.runpytest(*FLAGS, "--color=yes", "test_own.py").stdout.str()
    assert any("\x1b[" in line for line in text.splitlines() if line.lstrip("\x1b[0123456789m").startswith("llama"))


def test_reports_are_written_where_they_were_asked_for(reported: pytest.Pytester) -> None:
    result = reported.runpytest(
        *FLAGS, "--llm-report=md:out/summary.md", "--llm-report=html:out/page.html", "--llm-report=json:r.json",
        "test_own.py",
    )  # fmt: skip
    folder = reported.path / "out"
    result.stdout.fnmatch_lines([f"md report: {folder / 'summary.md'}", f"html report: {folder / 'page.html'}"])
    assert "llama" in (folder / "summary.md").read_text()
    assert (folder / "page.html").read_text().lower().startswith("<!doctype html>")
    cells = json.loads((reported.path / "r.json").read_text())["cells"]
    assert {cell["cell"]: cell["outcome"] for cell in cells} == {
        "llama.cpu.fp32.none.to": "partial",
        "llama.cpu.bf16.none.to": "failed",
    }


def test_workers_give_one_report(reported: pytest.Pytester, run_process: Callable[..., pytest.RunResult]) -> None:
    pytest.importorskip("xdist")
    run_process(*FLAGS, "-n2", "--llm-report=json:r.json", "test_own.py")
    cells = json.loads((reported.path / "r.json").read_text())["cells"]
    assert {cell["cell"] for cell in cells} == CELLS


def test_a_job_on_github_gets_a_summary_without_being_asked(
    reported: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = reported.path / "step-summary"
    path.write_text("an earlier step\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    reported.runpytest(*FLAGS, "test_own.py")
    assert path.read_text().startswith("an earlier step\n")
    assert "llama.cpu.bf16.none.to" in path.read_text()
    reported.runpytest(*FLAGS, "--llm-report=json:r.json", "test_own.py")
    assert path.read_text().count("an earlier step") == 1
    assert path.read_text().count("1 failed") == 1


def test_a_report_that_cannot_be_written_fails_the_run_and_not_its_records(reported: pytest.Pytester) -> None:
    (reported.path / "file").write_text("")
    reported.makepyfile(test_own="def test_good(llm_cell): pass")
    result = reported.runpytest(*FLAGS, "--llm-report=md:file/x.md", "--llm-results=results", "test_own.py")
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*file/x.md: cannot be written: *"])
    assert list((reported.path / "results").glob("*.jsonl"))


def test_the_parts_of_a_matrix_make_up_the_whole(project: pytest.Pytester) -> None:
    project.makefile(
        ".toml", many='models = ["llama", "gpt2"]\ndevices = "cpu"\ndtypes = ["float32", "bfloat16", "float16"]\n'
    )
    project.makepyfile(test_own="def test_it(llm_cell): pass")
    ran = []
    for part in ("1/2", "2/2"):
        result = project.runpytest(
            "--llm-matrix", "--llm-matrix-file=many.toml", f"--llm-shard={part}", "--llm-results=all", "test_own.py"
        )
        ran.append(result.parseoutcomes()["passed"])
        other = "2/2" if part == "1/2" else "1/2"
        result.stdout.fnmatch_lines([f"*not requested*shard {other}*"])
    assert sum(ran) == 6
    assert min(ran) == 3


def test_a_part_is_not_asked_for_what_the_whole_must_show(project: pytest.Pytester) -> None:
    project.makefile(
        ".toml",
        whole='models = "llama"\ndevices = "cpu"\ndtypes = ["float32", "bfloat16"]\n[require]\ndtypes = "*"\n',
    )
    project.makepyfile(test_own="def test_it(llm_cell): pass")
    flags = ("--llm-matrix", "--llm-matrix-file=whole.toml", "test_own.py")
    assert project.runpytest(*flags, "--llm-shard=1/2").ret == pytest.ExitCode.OK
    assert project.runpytest(*flags, "--llm-cell=dtype=float32").ret == pytest.ExitCode.TESTS_FAILED


# What others report


def test_junit_xml_carries_the_cell(reported: pytest.Pytester) -> None:
    reported.runpytest(*FLAGS, "--junitxml=report.xml", "test_own.py")
    cases = ET.parse(reported.path / "report.xml").getroot().iter("testcase")
    found = [{entry.attrib["name"]: entry.attrib["value"] for entry in case.iter("property")} for case in cases]
    assert {each["llm.cell"] for each in found} == CELLS
    assert {each["llm.check"] for each in found} == {"test_own::test_good", "test_own::test_bad"}


def test_reportlog_carries_the_cell(reported: pytest.Pytester) -> None:
    pytest.importorskip("pytest_reportlog")
    reported.runpytest(*FLAGS, "--report-log=log.jsonl", "test_own.py")
    lines = [json.loads(line) for line in (reported.path / "log.jsonl").read_text().splitlines()]
    found = {dict(line["user_properties"])["llm.cell"] for line in lines if line.get("$report_type") == "TestReport"}
    assert found == CELLS


def test_ctrf_carries_the_cell(reported: pytest.Pytester) -> None:
    pytest.importorskip("pytest_json_ctrf")
    reported.runpytest(*FLAGS, "--ctrf=ctrf.json", "test_own.py")
    tests = json.loads((reported.path / "ctrf.json").read_text())["results"]["tests"]
    assert {test["name"].partition("[")[2].removesuffix("]") for test in tests} == CELLS


def test_pytest_html_carries_the_cell(reported: pytest.Pytester) -> None:
    pytest.importorskip("pytest_html")
    reported.runpytest(*FLAGS, "--html=page.html", "--self-contained-html", "test_own.py")
    text = Path(reported.path / "page.html").read_text()
    assert all(cell in text for cell in CELLS)
