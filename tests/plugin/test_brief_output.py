"""What a failing run prints: each problem once, last of all, and how to run its cell again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable

import pytest

from pytest_llmdevice.matrix import vocabulary

SUITE = "pytest_llmdevice.suite"

MATRIX = """
models = ["llama", "gpt2"]
devices = "cpu"
dtypes = ["float32", "bfloat16"]
"""

TARGETS = """
import torch
from transformers import AutoModelForCausalLM

class Target:
    def load(self, checkpoint, cell):
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype).eval()
        return self.bad(model) if cell.dtype == "float32" else model

class Raising(Target):
    def bad(self, model):
        raise RuntimeError("no such revision")

class Zeroed(Target):
    def bad(self, model):
        model.get_output_embeddings().weight.data[:64] = 0
        return model
"""

CHECKS = "test_loads or test_values or test_forward or test_agreement or test_prefix"
FLAGS = ("--llm-matrix", "--llm-matrix-file=m.toml", "-k", CHECKS)


@pytest.fixture
def faulty(project: pytest.Pytester) -> pytest.Pytester:
    project.makefile(".toml", m=MATRIX)
    project.makepyfile(faulty=TARGETS)
    project.makeini("[pytest]\npythonpath = .\n")
    return project


def between(result: pytest.RunResult, first: str, last: str) -> list[str]:
    """The lines after the one with `first` and before the one with `last`."""
    lines = result.outlines
    start = next(number for number, line in enumerate(lines) if first in line)
    end = next(number for number, line in enumerate(lines) if number > start and last in line)
    return lines[start + 1 : end]


@pytest.mark.parametrize("more", [(), ("--llm-isolate=cell",), ("-n1",)], ids=["here", "isolated", "worker"])
def test_a_load_that_fails_is_one_error_of_a_few_lines(
    faulty: pytest.Pytester, run_process: Callable[..., pytest.RunResult], more: tuple[str, ...]
) -> None:
    result = run_process(*FLAGS, "--llm-target=faulty:Raising", "--pyargs", SUITE, *more)
    outcomes = result.parseoutcomes()
    assert (outcomes["errors"], outcomes["passed"]) == (10, 10)
    errors = between(result, "= ERRORS =", "short test summary")
    assert sum("ERROR at setup" in line for line in errors) == 1
    assert sum("Traceback (most recent call last)" in line for line in errors) == 1
    assert len(errors) <= 16
    listed = between(result, "short test summary", "= llm matrix")
    assert [line.partition(" - ")[0] for line in listed[:-1]] == [
        f"ERROR test_cells.py::test_loads[{model}.cpu.fp32.none.to]" for model in ("llama", "gpt2")
    ]
    assert listed[-1] == "and 8 more tests that failed for these reasons (-v shows all)"


def test_what_follows_is_not_printed_and_the_problem_comes_last(faulty: pytest.Pytester) -> None:
    result = faulty.runpytest(*FLAGS, "--llm-target=faulty:Zeroed", "--junit-xml=report.xml")
    failed = result.parseoutcomes()["failed"]
    assert failed > 2
    headlines = [line for line in between(result, "= FAILURES =", "short test summary") if line.startswith("___")]
    assert len(headlines) == 1
    assert "test_values[llama.cpu.fp32.none.to]" in headlines[0]
    listed = between(result, "short test summary", "= llm matrix")
    assert [line.split()[1] for line in listed[:-1]] == [
        f"test_cells.py::test_values[{model}.cpu.fp32.none.to]" for model in ("llama", "gpt2")
    ]
    problems = between(result, "1 problem", f"{failed} failed")
    assert problems[0].startswith("1. failed in 2 cells: values, and ")
    # Each test is a failure to everybody else.
    assert f'failures="{failed}"' in (faulty.path / "report.xml").read_text()


def test_verbose_runs_print_everything(faulty: pytest.Pytester) -> None:
    result = faulty.runpytest(*FLAGS, "--llm-target=faulty:Zeroed", "-v")
    failed = result.parseoutcomes()["failed"]
    lines = between(result, "= FAILURES =", "short test summary")
    assert sum(line.startswith("___") for line in lines) == failed
    assert len(between(result, "short test summary", "= llm matrix")) == failed


@pytest.mark.parametrize(
    ("style", "lines", "traceback"), [("no", 0, False), ("line", 2, False), ("short", 12, True), ("long", 16, True)]
)
def test_tracebacks_are_as_asked_for(faulty: pytest.Pytester, style: str, lines: int, traceback: bool) -> None:
    result = faulty.runpytest(*FLAGS, "--llm-target=faulty:Raising", f"--tb={style}")
    text = result.stdout.str()
    assert ("= ERRORS =" in text) == (style != "no")
    assert ("Traceback (most recent call last)" in text) == traceback
    assert ("^^^^" in text) == (style == "long")
    if style != "no":
        shown = between(result, "= ERRORS =", "short test summary")
        assert any("did not load: RuntimeError: no such revision" in line for line in shown)
        assert len(shown) <= lines


def test_other_plugins_find_all_reports(faulty: pytest.Pytester) -> None:
    faulty.makeconftest(
        """
        import pytest

        def pytest_terminal_summary(terminalreporter):
            terminalreporter.write_line(f"own: {len(terminalreporter.stats['error'])} errors")
        """
    )
    result = faulty.runpytest(*FLAGS, "--llm-target=faulty:Raising")
    result.stdout.fnmatch_lines(["own: 10 errors"])
    assert result.parseoutcomes()["errors"] == 10


def test_the_printed_command_runs_the_cell_again(
    faulty: pytest.Pytester, run_process: Callable[..., pytest.RunResult]
) -> None:
    (faulty.path / "a b").mkdir()
    (faulty.path / "m.toml").rename(faulty.path / "a b" / "m.toml")
    first = run_process(
        "--llm-matrix", "--llm-matrix-file=a b/m.toml", "--llm-target=faulty:Raising", "--llm-cell=model=gpt2",
        "-k", "test_loads",
    )  # fmt: skip
    printed = between(first, "run this cell again", "short test summary")[0]
    told = next(line.split(maxsplit=1)[1] for line in first.outlines if line.startswith("   again "))
    assert printed == told
    words = shlex.split(told)
    words = words[words.index("pytest") + 1 :]
    assert words == ["--llm-matrix", "--llm-matrix-file=a b/m.toml", "--llm-target=faulty:Raising",
                     "--llm-cell=gpt2.cpu.fp32.none.to", "-p", "answered"]  # fmt: skip
    again = run_process(*words)
    assert again.parseoutcomes()["errors"] == len(vocabulary.checks()) - 1
    again.stdout.fnmatch_lines(["gpt2.cpu.fp32.none.to did not load: RuntimeError: no such revision"])


@pytest.mark.parametrize("pyargs", [(), ("--pyargs",)], ids=["paths", "pyargs"])
def test_node_ids_work_as_they_are_printed(faulty: pytest.Pytester, pyargs: tuple[str, ...]) -> None:
    flags = ("--llm-matrix", "--llm-matrix-file=m.toml", "--llm-target=faulty:Raising", *pyargs)
    first = faulty.runpytest(*flags, "-k", "test_loads and gpt2", *((SUITE,) if pyargs else ()))
    nodeid = between(first, "short test summary", "= llm matrix")[0].split()[1]
    assert nodeid == "test_cells.py::test_loads[gpt2.cpu.fp32.none.to]"
    again = faulty.runpytest(*flags, nodeid)
    again.assert_outcomes(errors=1)
    told = next(line for line in again.outlines if line.startswith("   again "))
    assert shlex.split(told)[-1] == "test_cells.py"


def test_a_file_of_that_name_in_the_project_is_the_projects_own(faulty: pytest.Pytester) -> None:
    faulty.makepyfile(test_cells="def test_own(): pass")
    faulty.runpytest("--llm-matrix", "--llm-matrix-file=m.toml", "test_cells.py").assert_outcomes(passed=1)


def test_last_failed_runs_all_that_failed(faulty: pytest.Pytester) -> None:
    faulty.runpytest(*FLAGS, "--llm-target=faulty:Raising")
    kept = json.loads((faulty.path / ".pytest_cache" / "v" / "cache" / "lastfailed").read_text())
    assert len(kept) == 10


def test_tests_of_ones_own_are_printed_as_pytest_does(faulty: pytest.Pytester) -> None:
    faulty.makepyfile(
        test_own="""
        def test_it(llm_cell):
            assert llm_cell.dtype == "float32", llm_cell.id
        """
    )
    flags = ("--llm-matrix", "--llm-matrix-file=m.toml", "test_own.py")
    result = faulty.runpytest(*flags)
    result.assert_outcomes(passed=2, failed=2)
    lines = between(result, "= FAILURES =", "short test summary")
    assert sum(line.startswith("___") for line in lines) == 2
    again = [line for line in lines if "pytest --llm-matrix" in line]
    assert [shlex.split(line)[-2:] for line in again] == [
        [f"--llm-cell={model}.cpu.bf16.none.to", "test_own.py"] for model in ("llama", "gpt2")
    ]
    short = faulty.runpytest(*flags, "--tb=line")
    assert "run this cell again" not in short.stdout.str()
    short.stdout.fnmatch_lines(["*test_own.py:2: AssertionError: llama.cpu.bf16.none.to"])
