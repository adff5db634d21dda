"""What a plain load does too is said once for each architecture, counted apart, and is neither red nor a pass."""

from __future__ import annotations

import json
import shutil

import pytest

from pytest_llmdevice.matrix import vocabulary
from pytest_llmdevice.results.store import RunFile, read
from pytest_llmdevice.zoo.architectures import checkpoint_of

MATRIX = 'models = ["path:bart", "llama"]\ndevices = "cpu"\ndtypes = ["float32", "bfloat16"]\n'
EACH = len(vocabulary.checks()) - 1
"""Tests of a cell; the check of simulated cards is skipped."""


@pytest.fixture
def ran(project: pytest.Pytester) -> pytest.RunResult:
    shutil.copytree(checkpoint_of("bart-decoder"), project.path / "bart")
    project.makefile(".toml", m=MATRIX)
    arguments = ("--llm-results=res", "--llm-report=json:r.json", "--llm-report=md:r.md", "--llm-cell=dtype=float32")
    return project.runpytest(
        "--llm-matrix", "--llm-matrix-file=m.toml", "--pyargs", "pytest_llmdevice.suite", *arguments
    )


def test_a_run_with_what_is_upstream_s_is_green_and_says_so(project: pytest.Pytester, ran: pytest.RunResult) -> None:
    assert ran.ret == 0
    ran.assert_outcomes(passed=2 * EACH - 2, xfailed=2, skipped=1, deselected=2 * EACH)
    ran.stdout.fnmatch_lines(
        [
            "4 cells: 1 upstream, 1 passed, 2 not run",
            "Upstream: a plain load does so too",
            "  1 cell: BartForCausalLM of *",
        ]
    )
    (run,) = (file for path in (project.path / "res").glob("*.jsonl") for file in read(path))
    first, check = (check for check in run.checks if check.outcome == "upstream")
    assert (first.cell, first.check) == ("path-bart.cpu.fp32.none.to", "agreement")
    assert (check.cell, check.check) == (first.cell, "padding")
    assert check.message.startswith("BartForCausalLM of transformers ")
    assert check.findings[0].where == "logits of a padded batch"
    assert "BartForCausalLM of transformers" in (project.path / "r.md").read_text()
    counts = json.loads((project.path / "r.json").read_text())["counts"]["real"]
    assert (counts["upstream"], counts["passed"]) == (1, 1)


def test_a_gate_does_not_fail_for_it(project: pytest.Pytester, ran: pytest.RunResult) -> None:
    assert ran.ret == 0
    assert project.run("llmdevice", "gate", "res", "--baseline", "b.jsonl", "--update").ret == 0
    gate = project.run("llmdevice", "gate", "res", "--baseline", "b.jsonl")
    assert gate.ret == 0
    gate.stdout.fnmatch_lines(["gate passed: *"])


BART = ("--llm-matrix", "--llm-matrix-file=m.toml", "--llm-results=more", "--llm-cell=path-bart.cpu.fp32.none.to")


def recorded(project: pytest.Pytester, ran: pytest.RunResult, *more: str) -> RunFile:
    assert ran.ret == 0
    project.runpytest(*BART, *more, "--pyargs", "pytest_llmdevice.suite")
    (run,) = (file for path in (project.path / "more").glob("*.jsonl") for file in read(path))
    return run


def test_a_cell_of_which_a_part_ran_is_partly_run(project: pytest.Pytester, ran: pytest.RunResult) -> None:
    run = recorded(project, ran, "-k", "test_agreement or test_loads")
    assert [done.outcome for done in run.cells.values()] == ["partial"]


def test_with_runxfail_it_is_a_failure_with_its_findings(project: pytest.Pytester, ran: pytest.RunResult) -> None:
    run = recorded(project, ran, "--runxfail", "-k", "test_agreement")
    (check,) = (check for check in run.checks if check.check == "agreement")
    assert (check.outcome, check.failure) == ("failed", "numeric")
    assert check.findings
