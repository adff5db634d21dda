"""The end of a run: what is wrong, each problem once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

SUITE = "pytest_llmdevice.suite"

FOUR_CELLS = """
models = ["llama", "gpt2"]
devices = "cpu"
dtypes = ["float32", "bfloat16"]
"""

BUGGY = """
import torch
from transformers import AutoModelForCausalLM

def load(checkpoint, cell):
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).to(cell.device)
    return model if "llama" in cell.model else model.train()
"""


@pytest.fixture
def buggy(project: pytest.Pytester) -> pytest.Pytester:
    """A loader that drops the dtype, and leaves one model in training mode."""
    project.makefile(".toml", four=FOUR_CELLS)
    project.makepyfile(buggy=BUGGY)
    project.makeini("[pytest]\npythonpath = .\n")
    return project


FLAGS = ("--llm-matrix", "--llm-matrix-file=four.toml", "--llm-target=buggy", "--pyargs", SUITE)


def listed(result: pytest.RunResult) -> list[tuple[str, dict[str, str]]]:
    """The problems at the end of a run: the title of each, and what is said of it by name."""
    lines = result.outlines
    start = next(number for number, line in enumerate(lines) if re.fullmatch(r"\d+ problems?(, the .*)?", line))
    found: list[tuple[str, dict[str, str]]] = []
    for line in lines[start + 1 :]:
        if title := re.fullmatch(r"\d+\. (.*)", line):
            found.append((title[1], {}))
        elif (said := re.fullmatch(r"   (\w+) +(.*)", line)) and found:
            found[-1][1][said[1]] = said[2]
    return found


def test_one_bug_in_several_cells_and_checks_is_one_cause(buggy: pytest.Pytester) -> None:
    result = buggy.runpytest(*FLAGS, "-k", "test_dtypes or test_mode")
    (first, dtypes), (second, mode) = listed(result)
    assert (first, second) == ("failed in 2 cells: dtypes", "failed in 2 cells: mode")
    assert dtypes["cell"] in {"llama.cpu.bf16.none.to", "gpt2.cpu.bf16.none.to"}
    assert (dtypes["expected"], dtypes["found"]) == ("bfloat16", "float32")
    assert dtypes["source"].startswith("https://")
    assert (mode["where"], mode["expected"], mode["found"]) == ("the model", "eval mode", "training mode")


def test_workers_hand_their_findings_to_the_controller_and_junit_xml_has_none(
    buggy: pytest.Pytester, run_process: Callable[..., pytest.RunResult]
) -> None:
    result = run_process(*FLAGS, "-k", "test_dtypes", "-n1", "--junit-xml=report.xml")
    assert listed(result)[0][0] == "failed in 2 cells: dtypes"
    assert "llm_findings" not in (buggy.path / "report.xml").read_text()


def test_a_report_of_a_failure_has_the_findings_as_data(buggy: pytest.Pytester) -> None:
    buggy.makepyfile(
        recorder="""
        import json

        def pytest_runtest_logreport(report):
            with open("reports.jsonl", "a") as file:
                file.write(json.dumps([report.nodeid, getattr(report, "llm_findings", None)]) + "\\n")
        """
    )
    buggy.syspathinsert()
    buggy.runpytest("-p", "recorder", *FLAGS, "-k", "test_dtypes and llama")
    rows = [json.loads(line) for line in (Path(buggy.path) / "reports.jsonl").read_text().splitlines()]
    with_findings = [(nodeid, findings) for nodeid, findings in rows if findings is not None]
    assert [nodeid.partition("[")[2] for nodeid, _ in with_findings] == ["llama.cpu.bf16.none.to]"]
    check, where, expected, actual, *_ = with_findings[0][1][1]
    assert (check, where) == ("dtypes", "model.layers.{0,1}.self_attn.q_proj.weight")
    assert (expected, actual) == ("bfloat16", "float32")


def test_what_a_test_of_the_project_asserts_is_a_cause_too(buggy: pytest.Pytester) -> None:
    buggy.makepyfile(
        test_own="""
        from pytest_llmdevice import assert_eval_mode

        def test_it(llm_model): assert_eval_mode(llm_model)
        def test_more(llm_model): assert not "enough"
        """
    )
    result = buggy.runpytest(*FLAGS[:-2], "test_own.py")
    # An assertion of one's own is another problem.
    (asserted, more), (title, mode) = listed(result)
    assert (asserted, title) == ("failed in 4 cells: test_own::test_more", "failed in 2 cells: test_own::test_it")
    assert more["message"].startswith("AssertionError: assert ")
    assert mode["found"] == "training mode"


def test_a_check_that_looked_at_nothing_is_a_cause(buggy: pytest.Pytester) -> None:
    buggy.makepyfile(
        test_own="""
        from pytest_llmdevice.checks import Result

        def test_it(llm_cell): Result("tied").require()
        """
    )
    result = buggy.runpytest(*FLAGS[:-2], "test_own.py")
    ((title, said),) = listed(result)
    assert title == "hollow in 4 cells: test_own::test_it"
    assert said["message"] == "AssertionError: tied: hollow: there was nothing to check"


def test_an_expected_failure_and_a_good_run_list_none(buggy: pytest.Pytester) -> None:
    text = (
        FOUR_CELLS + '[[expect]]\nmodels = "*"\nchecks = ["dtypes"]\nxfail = "known"\n[[exclude]]\ndtypes = "float32"\n'
    )
    (buggy.path / "four.toml").write_text(text)
    result = buggy.runpytest(*FLAGS, "-k", "test_dtypes")
    result.assert_outcomes(xfailed=2, deselected=result.parseoutcomes()["deselected"])
    assert "problem" not in result.stdout.str()
    result.stdout.fnmatch_lines(["Failed as expected", "  2 cells: known"])


def test_of_many_problems_the_worst_are_shown(buggy: pytest.Pytester) -> None:
    buggy.makepyfile(
        test_own="""
        import pytest
        from pytest_llmdevice.checks import Finding, Result

        @pytest.mark.parametrize("name", "abcdefghijkl")
        def test_it(llm_cell, name): Result("tied", (Finding(name, "x", "y"),)).require()
        """
    )
    result = buggy.runpytest(*FLAGS[:-2], "test_own.py")
    assert [said["where"] for _, said in listed(result)] == list("abcde")
    result.stdout.fnmatch_lines(["12 problems, the 5 of most cells"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="real cards are never shadowed")
def test_simulated_cells_are_said_to_be(buggy: pytest.Pytester, no_cards: object) -> None:
    (buggy.path / "four.toml").write_text('models = "gpt2"\ndevices = ["cpu", "cuda:0"]\ndtypes = "float32"\n')
    result = buggy.runpytest(*FLAGS, "-k", "test_mode", "--llm-simulate=cuda:1")
    assert listed(result)[0][0] == "failed in 2 cells (1 simulated): mode"
