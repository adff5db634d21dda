"""`llmdevice gate`, as it is typed: exit codes, coverage, updates."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from results.builder import CARD, CPU_FP32, CUDA, SIMULATED, ResultsBuilder

from pytest_llmdevice.cli.command import command
from pytest_llmdevice.results.run_header import Commit

REQUIRED = """
models = ["llama"]
devices = ["cpu", "cuda:*"]
dtypes = ["float32", "bfloat16"]

[require]
devices = ["cpu", "cuda:0"]
"""


def gate(*arguments: str | Path, environment: dict[str, str] | None = None) -> Result:
    return CliRunner(env={"CI": "", **(environment or {})}).invoke(command, ["gate", *map(str, arguments)])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    skipped = {CARD: ("absent", "absent: no CUDA device")}
    ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}, skipped=skipped, name="laptop").write(tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "mine.toml").write_text(REQUIRED)
    monkeypatch.chdir(tmp_path)
    return "mine.toml"


def test_good_results_exit_0_and_failing_ones_1(tmp_path: Path, results: Path) -> None:
    assert (gate(results).exit_code, gate(results).output) == (
        0,
        "gate passed\ntarget builtin, the loader of pytest-llmdevice itself: no code of a project was tested\n",
    )
    ResultsBuilder(
        {CPU_FP32: {"dtypes": "failed"}}, name="later", started="2027-01-01T00:00:00+00:00", commit=Commit(id="f" * 9)
    ).write(results)
    assert gate(results).exit_code == 1


def test_an_update_writes_what_a_gate_then_holds_results_against(tmp_path: Path, results: Path) -> None:
    path = tmp_path / "b.jsonl"
    assert gate(results, "--baseline", path, "--update").output == f"{path}: written, 1 check of 1 cell\n"
    found = gate(results, "--baseline", path)
    assert found.exit_code == 0
    assert found.output.splitlines()[0] == "gate passed: 1 unchanged"


def test_an_update_in_ci_is_refused_unless_forced(tmp_path: Path, results: Path) -> None:
    path = tmp_path / "b.jsonl"
    refused = gate(results, "--baseline", path, "--update", environment={"CI": "true"})
    assert refused.exit_code == 2
    assert refused.stderr == (
        f"Error: {path}: not updated: CI is set: update the baseline on a machine of yours and commit it, "
        "or force 'ci'\n"
    )
    assert not path.exists()
    forced = gate(results, "--baseline", path, "--update", "--force", "ci,dirty", "--json", environment={"CI": "true"})
    assert json.loads(forced.output) == {"baseline": str(path), "cells": 1, "checks": 1, "notes": []}


def test_coverage_that_is_missing_exits_1(results: Path, required: str) -> None:
    found = gate(results, "--require", required)
    assert found.exit_code == 1
    assert found.output.splitlines() == [
        "gate failed: coverage is missing, 1 value",
        "  device cuda:0: none of its 1 cells passed on real hardware",
        "target builtin, the loader of pytest-llmdevice itself: no code of a project was tested",
    ]


def test_a_simulated_pass_is_no_coverage(results: Path, required: str) -> None:
    ResultsBuilder({SIMULATED: {"dtypes": "passed"}}, name="simulated").write(results)
    found = gate(results, "--require", required)
    assert found.exit_code == 1
    assert "none of its 1 cells passed on real hardware, 1 passed only simulated" in found.output


def test_coverage_that_another_machine_has_shown_counts(results: Path, required: str) -> None:
    ResultsBuilder({CARD: {"dtypes": "passed"}}, machine=CUDA, name="card").write(results)
    assert gate(results, "--require", required).exit_code == 0


def test_a_cell_of_two_targets_is_counted_once(results: Path, required: str) -> None:
    ResultsBuilder(
        {CPU_FP32: {"dtypes": "passed"}}, skipped={CARD: ("absent", "absent: none")}, target="mine:loader", name="mine"
    ).write(results)
    assert "none of its 1 cells" in gate(results, "--require", required).output


def test_json_has_the_verdict_and_the_coverage(results: Path, required: str) -> None:
    found = json.loads(gate(results, "--require", required, "--json").output)
    assert not found["good"]
    assert found["missing"] == ["device cuda:0: none of its 1 cells passed on real hardware"]
    assert found["baseline"] is None
    assert found["results"]["outcomes"] == {"passed": 1, "never ran": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--require", "default"], "--require default: the matrix has no [require]: add one, or name another matrix"),
        (["--require", "relase"], "unknown matrix 'relase'"),
        (["--fail-on", "regression"], "--fail-on needs a baseline: give --baseline FILE"),
        (["--update"], "--update needs a baseline: give --baseline FILE"),
        (["--force", "ci"], "--force is for --update: give both"),
        (["--baseline", "b", "--update", "--fail-on", "new"], "leave --require and --fail-on out"),
        (["--baseline", "no-such-file"], "no-such-file: there is no baseline yet"),
        (["--baseline", "no-such-file", "--fail-on", "sloer"], "unknown difference 'sloer'; did you mean 'slower'?"),
    ],
)
def test_a_question_that_makes_no_sense_exits_2(results: Path, arguments: list[str], message: str) -> None:
    found = gate(results, *arguments)
    assert found.exit_code == 2
    assert message in found.stderr


def test_neither_torch_nor_pytest_is_imported(results: Path) -> None:
    code = (
        "import sys; from pytest_llmdevice.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print([name for name in ('torch', 'pytest', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "gate", str(results), "--require", "release"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == "[]"
