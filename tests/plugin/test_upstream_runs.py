"""What a plain load does too is said once for each architecture, counted apart, and is neither red nor a pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkpoints import bart_decoder

from pytest_llmdevice.matrix import vocabulary
from pytest_llmdevice.results.store import read

MATRIX = 'models = ["path:bart", "llama"]\ndevices = "cpu"\ndtypes = ["float32", "bfloat16"]\n'
EACH = len(vocabulary.checks()) - 1
"""Tests of a cell; the check of simulated cards is skipped."""


@pytest.fixture
def ran(project: pytest.Pytester) -> pytest.RunResult:
    (project.path / "bart").mkdir()
    bart_decoder(project.path / "bart")
    project.makefile(".toml", m=MATRIX)
    arguments = ("--llm-results=res", "--llm-report=json:r.json", "--llm-report=md:r.md", "--llm-cell=dtype=float32")
    return project.runpytest(
        "--llm-matrix", "--llm-matrix-file=m.toml", "--pyargs", "pytest_llmdevice.suite", *arguments
    )


def test_a_run_with_what_is_upstream_s_is_green_and_says_so(project: pytest.Pytester, ran: pytest.RunResult) -> None:
    assert ran.ret == 0
    ran.assert_outcomes(passed=2 * EACH - 1, xfailed=1, skipped=1, deselected=2 * EACH)
    ran.stdout.fnmatch_lines(
        [
            "4 cells: 1 upstream, 1 passed, 2 not run",
            "Upstream: a plain load does so too",
            "  1 cell: BartForCausalLM of *",
        ]
    )
    (run,) = (file for path in (project.path / "res").glob("*.jsonl") for file in read(path))
    (check,) = (check for check in run.checks if check.outcome == "upstream")
    assert (check.cell, check.check) == ("path-bart.cpu.fp32.none.to", "padding")
    assert check.message.startswith("BartForCausalLM of transformers ")
    assert check.findings[0].where == "logits of a padded batch"
    assert "BartForCausalLM of transformers" in (project.path / "r.md").read_text()
    counts = json.loads((project.path / "r.json").read_text())["counts"]["real"]
    assert (counts["upstream"], counts["passed"]) == (1, 1)


def test_a_gate_does_not_fail_for_it(project: pytest.Pytester, ran: pytest.RunResult) -> None:
    assert ran.ret == 0
    results = str(Path("res"))
    assert project.run("llmdevice", "gate", results, "--baseline", "b.jsonl", "--update").ret == 0
    gate = project.run("llmdevice", "gate", results, "--baseline", "b.jsonl")
    assert gate.ret == 0
    gate.stdout.fnmatch_lines(["gate passed: *"])
