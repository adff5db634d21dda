"""`llmdevice plan`: every cell in exactly one job, evenly, in what GitHub and GitLab read."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from _pytest.config.argparsing import Parser
from results.builder import ResultsBuilder

from cli.calling import call
from pytest_llmdevice.cli import jobs as planning
from pytest_llmdevice.cli.cells import assumed, cells_on, load_matrix
from pytest_llmdevice.cli.selection import expressions
from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.select import parse_all
from pytest_llmdevice.plugin.flags import add_options
from pytest_llmdevice.plugin.options import Settings
from pytest_llmdevice.plugin.session import MatrixRun
from pytest_llmdevice.simulation.inventory import SimulatedMachines

loaded = cache(load_matrix)


def selected(options: str, cards: list[str]) -> list[str]:
    """The ids that pytest would run with `options`, on a machine that has `cards`."""
    parser = Parser(_ispytest=True)
    add_options(parser)
    given = parser.parse(["--llm-matrix", *shlex.split(options)])
    settings = Settings(
        active=True,
        matrix=given.llm_matrix_file,
        cells=tuple(given.llm_cell or ()),
        simulate=tuple(given.llm_simulate or ()),
        shard=given.llm_shard or "",
    )
    matrix = loaded(settings.matrix)
    run = MatrixRun(settings, matrix, SimulatedMachines.read(settings.simulate), assumed(cards))
    return [cell.id for cell in run.cells if run.requested(cell)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Results of the matrix `release` on a cpu and on simulated cards, no two cells of the same length."""
    cells = cells_on(load_matrix("release"), assumed((), ["cuda:2"]))
    folder = tmp_path_factory.mktemp("recorded") / "times"
    ResultsBuilder(
        {cell: {"loads": "passed"} for cell in cells},
        changes={cell: {"seconds": 1.0 + number * 7 % 50} for number, cell in enumerate(cells)},
        simulated=("cuda:2",),
    ).write(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("matrix", "arguments", "cards", "timed"),
    [
        ("release", ["--jobs", "2"], [], True),
        ("release", ["--jobs", "7", "--cards", "cuda=2"], ["cuda=2"], False),
        ("release", ["--jobs", "7", "--simulate", "cuda:2"], [], True),
        ("default", ["--jobs", "12"], [], False),
        ("dcu", ["--jobs", "3"], [], True),
    ],
)
def test_all_jobs_together_select_every_cell_once(
    timed: bool, matrix: str, arguments: list[str], cards: list[str], recorded: str
) -> None:
    times = ["--times", recorded] if timed else []

    called = call("plan", "--matrix", matrix, *arguments, *times, "--github")

    options = [job["options"] for job in called.json["include"]]
    assert len(options) == int(arguments[1])
    simulate = [arguments[3]] if "--simulate" in arguments else []
    assert chosen(options, cards) == every_cell(matrix, cards, simulate)


@pytest.mark.parametrize("jobs", ["6", "12"])
def test_all_jobs_of_gitlab_select_every_cell_once(jobs: str, recorded: str) -> None:
    called = call("plan", "--matrix", "release", "--jobs", jobs, "--times", recorded, "--label", "cuda=gpu", "--gitlab")

    assert chosen([job["PYTEST_ADDOPTS"] for job in called.json], []) == every_cell("release", [], [])


def chosen(options: list[str], cards: list[str]) -> Counter[str]:
    """How many of the jobs run each cell."""
    return Counter(cell.removesuffix(".sim") for each in options for cell in selected(each, cards))


def every_cell(matrix: str, cards: list[str], simulate: list[str]) -> Counter[str]:
    return Counter(cell.id.removesuffix(".sim") for cell in cells_on(load_matrix(matrix), assumed(cards, simulate)))


def test_a_job_has_what_github_needs_to_run_it() -> None:
    found = call("plan", "--matrix", "release", "--jobs", "3", "--github")

    assert found.out.count("\n") == 1
    assert found.json["include"][1] == {
        "name": "cuda-1-of-2",
        "runs-on": ["self-hosted", "cuda"],
        "hardware": "cuda",
        "simulate": "",
        "cells": "--llm-cell kind=cuda --llm-shard 1/2",
        "options": "--llm-matrix-file release --llm-cell kind=cuda --llm-shard 1/2",
        "count": 63,
        "seconds": None,
    }


def test_gitlab_gets_variables_that_are_texts() -> None:
    found = call("plan", "--matrix", "release", "--label", "cuda=gpu", "--gitlab").json

    assert found == [
        {
            "LLM_JOB": "cpu-1-of-1",
            "LLM_RUNNER": "saas-linux-small-amd64",
            "PYTEST_ADDOPTS": "--llm-matrix-file release --llm-cell kind=cpu",
        },
        {
            "LLM_JOB": "cuda-1-of-1",
            "LLM_RUNNER": "gpu",
            "PYTEST_ADDOPTS": "--llm-matrix-file release --llm-cell kind=cuda",
        },
    ]


def test_simulated_cards_run_where_the_cpu_does() -> None:
    found = call("plan", "--matrix", "cuda", "--simulate", "cuda:2", "--github").json["include"]

    assert [(job["runs-on"], job["simulate"]) for job in found] == [(["ubuntu-latest"], "cuda:2")]
    assert found[0]["options"].endswith("--llm-simulate cuda:2")


def test_labels_are_those_that_are_given() -> None:
    found = call("plan", "--matrix", "release", "--label", "cuda=self-hosted,gpu", "--label", "cpu=big", "--json").json

    assert [job["labels"] for job in found["jobs"]] == [["big"], ["self-hosted", "gpu"]]


def test_jobs_are_balanced_by_recorded_times(recorded: str) -> None:
    found = call("plan", "--matrix", "release", "--jobs", "8", "--times", recorded, "--json").json["jobs"]

    by_kind: dict[str, list[float]] = {}
    for job in found:
        by_kind.setdefault(job["hardware"], []).append(job["seconds"])
    for seconds in by_kind.values():
        assert max(seconds) <= 1.05 * sum(seconds) / len(seconds)
    assert sum(job["seconds"] for job in found) > 0


def test_a_baseline_has_times_too(tmp_path: Path, recorded: str) -> None:
    baseline = str(tmp_path / "baseline.jsonl")
    assert call("gate", recorded, "--baseline", baseline, "--update", "--force", "ci").code == 0

    arguments = ["plan", "--matrix", "release", "--jobs", "4", "--simulate", "cuda:2", "--json", "--times"]

    assert call(*arguments, baseline).json == call(*arguments, recorded).json


def test_minutes_ask_for_as_many_jobs_as_it_takes(recorded: str) -> None:
    found = call("plan", "--matrix", "release", "--minutes", "10", "--times", recorded, "--json").json["jobs"]

    assert len(found) > 4
    # Within the tolerance that keeps models together.
    assert max(job["seconds"] for job in found) <= 1.05 * 600


def test_more_minutes_than_the_service_has_jobs_for_is_clamped_with_a_note(recorded: str) -> None:
    called = call("plan", "--matrix", "default", "--minutes", "0.1", "--times", recorded, "--github")

    assert called.code == 0
    assert len(called.json["include"]) == 256
    assert "GitHub Actions takes at most 256: each takes longer than was asked for" in called.err


def test_hardware_that_is_left_out_is_said_with_its_cells() -> None:
    called = call("plan", "--without", "rocm", "--without", "xpu", "--without", "mps", "--json")

    assert {job["hardware"] for job in called.json["jobs"]} == {"cpu", "cuda"}
    assert "note: rocm: 127 cells in no job (--without)\n" in called.err


def test_the_plan_for_people_fits_a_terminal() -> None:
    out = call("plan", "--matrix", "release", "--jobs", "5").out

    assert "227 cells in 5 jobs" in out
    assert re.search(r"^  cpu-1-of-2 +50 +- +\d+  ubuntu-latest$", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "300", "--github"], "--jobs 300: GitHub Actions takes at most 256 jobs of a matrix"),
        (["--jobs", "201", "--gitlab"], "--jobs 201: GitLab takes at most 200 jobs of a matrix"),
        (["--jobs", "0"], "0 is not in the range x>=1"),
        (["--jobs", "1"], "--jobs 1: each kind of hardware needs a job of its own (cpu, cuda): ask for 2 or more"),
        (["--minutes", "5"], "--minutes needs to know how long cells take: add --times"),
        (["--minutes", "5", "--jobs", "2"], "--jobs and --minutes exclude each other"),
        (["--json", "--github"], "--json and --github exclude each other"),
        (["--times", "nowhere"], "nowhere: no such file or folder"),
        (["--label", "gpu=x"], "--label 'gpu=x': unknown kind of hardware 'gpu'"),
        (["--label", "cuda"], "--label 'cuda' has no label: write cuda=LABEL"),
        (["--label", "cuda=a", "--label", "cuda=b"], "cuda is given twice"),
        (["--label", "mps=a"], "--label mps: unknown kind of hardware in the matrix 'mps'"),
        (["--without", "mps"], "--without mps: unknown kind of hardware in the matrix 'mps'"),
        (["--without", "cpu", "--without", "cuda"], "--without leaves no hardware"),
        (["--simulate", "mps"], "--simulate mps: unknown kind of hardware in the matrix 'mps'"),
        (["--simulate", "cuda", "--label", "cuda=x"], "--label says where real cuda hardware is"),
        (["--label", "cuda=a,b", "--gitlab"], "GitLab takes one tag for each kind of hardware"),
        (
            ["--label", f"cuda={'x' * 250}", "--gitlab"],
            "GitLab silently makes no pipeline with a name of more than 255",
        ),
        (["--matrix", "nope"], "unknown matrix 'nope'"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_a_sentence(arguments: list[str], message: str) -> None:
    called = call("plan", "--matrix", "release", *arguments)

    assert called.code == 2
    assert called.out == ""
    assert message in called.err


def test_results_in_which_nothing_ran_have_no_times(tmp_path: Path) -> None:
    ResultsBuilder({}, skipped={Cell("llama", "cpu", "float32"): ("unsupported", "unsupported: not here")}).write(
        tmp_path
    )

    called = call("plan", "--times", str(tmp_path))

    assert called.code == 2
    assert "no cell ran there" in called.err


def test_a_matrix_with_fewer_cells_than_jobs_gets_fewer_jobs(tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    path.write_text('models = ["llama", "gpt2"]\ndevices = ["cpu"]\ndtypes = ["float32"]\n', encoding="utf-8")

    called = call("plan", "--matrix", str(path), "--jobs", "5", "--json")

    assert [job["cells"] for job in called.json["jobs"]] == [["gpt2.cpu.fp32.none.to"], ["llama.cpu.fp32.none.to"]]
    assert "2 jobs, not 5: no job would be left without a cell" in called.err


def test_selectors_that_are_too_long_for_the_service_give_way_to_shards(recorded: str) -> None:
    called = call("plan", "--matrix", "release", "--jobs", "9", "--times", recorded, "--label", "cuda=g", "--gitlab")

    assert "--llm-shard" in called.out
    assert "balanced by number of cells, not by their times" in called.err
    assert max(len(", ".join(job.values())) for job in called.json) < 247


def test_the_output_keeps_within_what_github_takes() -> None:
    cells = tuple(Cell(f"path:{'long' * 1000}{number}", "cpu", "float32") for number in range(300))
    group = planning.Group("cpu", ("ubuntu-latest",), "", cells)
    seconds = {cell.id: 1.0 + number % 13 for number, cell in enumerate(cells)}

    plan = planning.plan_jobs("m", [group], seconds, planning.GITHUB, jobs=256)

    assert len(json.dumps(planning.github_matrix(plan))) < planning.GITHUB.output
    assert plan.notes[0].startswith("cpu: balanced by number of cells, not by their times")


def random_like(cells: tuple[Cell, ...], every: int) -> list[Cell]:
    return [cell for number, cell in enumerate(cells) if number * number % every < every / 2]


@pytest.mark.parametrize("every", [2, 3, 7, 50])
def test_expressions_fit_exactly_the_cells_that_were_chosen(every: int) -> None:
    cells = cells_on(load_matrix("default"), assumed(()))
    chosen = random_like(cells, every)

    selectors = parse_all(expressions(chosen, cells), cells)

    for cell in cells:
        assert sum(selector.matches(cell) for selector in selectors) == (cell in set(chosen))


def test_a_simple_choice_is_one_simple_expression() -> None:
    cells = cells_on(load_matrix("default"), assumed(()))
    chosen = [cell for cell in cells if cell.kind == "cpu" and cell.model in {"llama", "opt"}]

    assert expressions(chosen, cells) == ["kind=cpu,model=llama|opt"]
    assert expressions([cell for cell in cells if cell.kind == "mps"], cells) == ["kind=mps"]
    assert expressions(cells, cells) == ["id=*"]
    assert expressions([], cells) == []


@pytest.mark.parametrize("name", ["path:a b", "path:a,b|c", "path:[x]*?", "hub:org/name@main", "path:$HOME;x"])
def test_names_that_an_expression_or_a_shell_would_split_are_chosen_all_the_same(name: str) -> None:
    cells = [Cell(name, "cpu", "float32"), Cell("llama", "cpu", "float32"), Cell("path:other", "cpu", "float32")]
    found = expressions(cells[:1], cells)

    selector = parse_all(found, cells)[0]

    assert [selector.matches(cell) for cell in cells] == [True, False, False]
    assert shlex.split(shlex.join(found)) == found


def test_names_that_no_expression_can_tell_apart_are_refused() -> None:
    cells: list[Any] = [Cell("path:a b", "cpu", "float32"), Cell("path:a,b", "cpu", "float32")]

    with pytest.raises(ConfigurationError, match="differ only in blanks, commas or bars"):
        expressions(cells[:1], cells)
