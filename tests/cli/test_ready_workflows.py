"""The workflows that are there to be copied do what they say: their scripts are run, by a shell, as a service would."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from results.builder import CARD, CPU_BF16, CPU_FP32, ResultsBuilder

from cli.calling import call

EXAMPLES = Path(__file__).parents[2] / ".github" / "examples"
GITHUB = EXAMPLES / "llm-matrix.yml"
GITLAB = EXAMPLES / "gitlab" / "gitlab-ci.yml"
GITLAB_JOBS = EXAMPLES / "gitlab" / "llm-jobs.yml"

BASH = shutil.which("bash")

pytestmark = pytest.mark.skipif(BASH is None, reason="the scripts are for bash")

MATRIX = """
models = ["llama"]
devices = ["cpu", "cuda:0"]
dtypes = ["float32", "bfloat16"]
[require]
devices = ["cpu", "cuda:0"]
"""


def read(path: Path) -> Any:
    # PyYAML has no types of its own, and comes with huggingface_hub.
    return import_module("yaml").safe_load(path.read_text(encoding="utf-8"))


def script(job: Mapping[str, Any], name: str) -> str:
    """What a step of GitHub's runs; the step is known by its name, its id or its text."""
    found = [step["run"] for step in job["steps"] if name in (step.get("name"), step.get("id"), step.get("run"))]
    assert len(found) == 1
    return str(found[0])


def shell(text: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `text` as both services do: it ends with the first command that fails."""
    assert BASH is not None
    # Without the folder of the scripts: then it is this interpreter's command that is found.
    path = os.pathsep.join((str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]))
    return subprocess.run(
        [BASH, "--noprofile", "--norc", "-eo", "pipefail", "-c", text],
        cwd=folder,
        env={"PATH": path, "HOME": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def program(folder: Path, name: str, text: str) -> None:
    """A program of this name for the scripts, instead of the real one."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a matrix, whose shards have run: the cells of the cpu, and one on a card."""
    (tmp_path / "m.toml").write_text(MATRIX, encoding="utf-8")
    skipped = dict.fromkeys((CARD,), ("not requested", "not requested: it belongs to shard 2/2"))
    ResultsBuilder({CPU_FP32: {"loads": "passed"}, CPU_BF16: {"loads": "passed"}}, skipped, matrix="m.toml").write(
        tmp_path / "parts" / "cpu"
    )
    ResultsBuilder({CARD: {"loads": "passed"}}, name="20261125T100001Z-bbbbbb", matrix="m.toml").write(
        tmp_path / "parts" / "cuda"
    )
    return tmp_path


@pytest.fixture
def baseline(project: Path) -> Path:
    """What the project has committed after its first run."""
    path = project / "llm-baseline.jsonl"
    called = call(
        "gate", *map(str, (project / "parts").iterdir()), "--baseline", str(path), "--update", "--force", "ci"
    )
    assert called.code == 0, called.err
    return path


VARIABLES = {"MATRIX": "m.toml", "BASELINE": "llm-baseline.jsonl", "JOBS": "3"}


def test_what_the_jobs_are_made_of_is_what_the_plan_says() -> None:
    planned = call("plan", "--matrix", "release", "--github").json["include"][0]

    expressions = re.findall(r"\$\{\{.*?\}\}", GITHUB.read_text(encoding="utf-8"))
    used = {name for text in expressions for name in re.findall(r"\bmatrix\.([\w-]+)", text)}

    assert used == {"name", "runs-on", "hardware", "simulate", "options"}
    assert used <= set(planned)


def test_jobs_of_github_come_one_after_the_other_and_a_failed_shard_does_not_stop_the_gate() -> None:
    jobs = read(GITHUB)["jobs"]

    assert (jobs["shard"]["needs"], jobs["gate"]["needs"]) == ("plan", ["plan", "shard"])
    assert jobs["gate"]["if"].startswith("${{ !cancelled()")
    assert jobs["shard"]["strategy"]["fail-fast"] is False
    uploads = [step for step in jobs["shard"]["steps"] if "upload-artifact" in step.get("uses", "")]
    assert [step["if"] for step in uploads] == ["always()"]


@pytest.mark.parametrize("committed", [False, True], ids=["first run", "with a baseline"])
def test_the_plan_of_github_is_written_where_the_next_job_reads_it(
    project: Path, committed: bool, request: pytest.FixtureRequest
) -> None:
    if committed:
        request.getfixturevalue("baseline")
    workflow = read(GITHUB)

    done = shell(
        script(workflow["jobs"]["plan"], "plan"),
        project,
        **VARIABLES,
        HARDWARE=workflow["env"]["HARDWARE"],
        GITHUB_OUTPUT=str(project / "output"),
    )

    assert done.returncode == 0, done.stderr
    key, _, value = (project / "output").read_text(encoding="utf-8").partition("=")
    found = json.loads(value)["include"]
    assert key == "jobs"
    assert {tuple(job["runs-on"]) for job in found} == {("ubuntu-latest",), ("self-hosted", "gpu")}
    assert [job["seconds"] is not None for job in found] == [committed] * 3


def test_a_plan_that_cannot_be_made_fails_the_job(project: Path) -> None:
    step = script(read(GITHUB)["jobs"]["plan"], "plan")

    done = shell(step, project, **(VARIABLES | {"MATRIX": "nope"}), GITHUB_OUTPUT=str(project / "output"))

    assert done.returncode == 2
    assert "unknown matrix 'nope'" in done.stderr
    assert not (project / "output").exists()


@pytest.mark.parametrize("service", ["github", "gitlab"])
@pytest.mark.parametrize(("status", "ends"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 1), (5, 1)])
def test_tests_that_failed_are_for_the_gate_and_all_else_fails_the_shard(
    tmp_path: Path, service: str, status: int, ends: int
) -> None:
    program(tmp_path, "pytest", f"exit {status}")
    if service == "github":
        step = script(read(GITHUB)["jobs"]["shard"], "pytest")
    else:
        step = next(line for line in read(GITLAB_JOBS)[".llm"]["script"] if line.startswith("pytest"))

    assert shell(step, tmp_path, LLM_JOB="cpu-1-of-1").returncode == ends


def test_the_gate_of_github_merges_reports_and_passes_what_is_as_it_was(project: Path, baseline: Path) -> None:
    assert baseline.exists()
    job = read(GITHUB)["jobs"]["gate"]
    steps = [step["run"] for step in job["steps"] if step.get("run", "").strip().startswith(("llmdevice", "baseline"))]

    for step in steps:
        done = shell(step, project, **VARIABLES, GITHUB_STEP_SUMMARY=str(project / "summary.md"))
        assert done.returncode == 0, f"{step}: {done.stdout}{done.stderr}"

    assert len(steps) == 3
    assert "llama" in (project / "summary.md").read_text(encoding="utf-8")
    assert (project / "llm-matrix.html").stat().st_size > 1_000


def test_the_gate_of_github_fails_what_got_worse(project: Path, baseline: Path) -> None:
    assert baseline.exists()
    ResultsBuilder(
        {CPU_FP32: {"loads": "failed"}}, name="20261126T100000Z-cccccc", started="2026-11-26T10:00:00+00:00"
    ).write(project / "parts" / "later")
    job = read(GITHUB)["jobs"]["gate"]
    merge = script(job, "llmdevice merge parts/* -o llm-results")
    gate = script(job, 'llmdevice gate llm-results --baseline "$BASELINE" --require "$MATRIX"')

    assert shell(merge, project, **VARIABLES).returncode == 0
    done = shell(gate, project, **VARIABLES)

    assert done.returncode == 1
    assert CPU_FP32.id in done.stdout


@pytest.mark.parametrize("committed", [False, True], ids=["first run", "with a baseline"])
def test_the_plan_of_gitlab_makes_a_child_pipeline(
    project: Path, committed: bool, request: pytest.FixtureRequest
) -> None:
    if committed:
        request.getfixturevalue("baseline")
    pipeline = read(GITLAB)
    lines = [line for line in pipeline["plan"]["script"] if "pip install" not in line]

    done = shell("\n".join(lines), project, **VARIABLES, HARDWARE=pipeline["variables"]["HARDWARE"])

    assert done.returncode == 0, done.stderr
    child = read(project / pipeline["plan"]["artifacts"]["paths"][0])
    jobs = child["llm"]["parallel"]["matrix"]
    assert child["include"] == [{"local": ".gitlab/llm-jobs.yml"}]
    assert child["llm"]["extends"] in read(GITLAB_JOBS)
    assert len(jobs) == 3
    assert {job["LLM_RUNNER"] for job in jobs} == {"docker", "gpu"}
    assert {type(value) for job in jobs for value in job.values()} == {str}


def test_the_gate_of_gitlab_merges_reports_and_judges(project: Path, baseline: Path) -> None:
    assert baseline.exists()
    lines = [line for line in read(GITLAB_JOBS)["gate"]["script"] if "pip install" not in line]

    done = shell("\n".join(lines), project, **VARIABLES)

    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert (project / "llm-matrix.html").stat().st_size > 1_000
