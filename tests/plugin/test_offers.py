"""Cells that a target does not offer, and checks that do not apply to its model, in runs, results and the gate."""

from __future__ import annotations

import pytest

from pytest_llmdevice.results.records import Check
from pytest_llmdevice.results.store import read
from pytest_llmdevice.results.update import FORCE_WORDS

THREE = """
models = "llama"
devices = "cpu"
dtypes = ["float32", "bfloat16"]
strategies = ["to", "device-map"]

[[exclude]]
dtypes = "bfloat16"
strategies = "device-map"
reason = "three are enough"
"""

SOME = """
from pytest_llmdevice import BuiltinTarget, Unsupported

class Target(BuiltinTarget):
    withdrawn = {withdrawn}

    def offers(self, cell):
        if cell.strategy in self.withdrawn:
            return f"{{cell.strategy}} is not for us"
        return True

    def load(self, checkpoint, cell):
        if cell.dtype == "bfloat16":
            raise Unsupported("bfloat16 needs a flag")
        return super().load(checkpoint, cell)
"""


def write(project: pytest.Pytester, withdrawn: set[str]) -> None:
    project.makepyfile(some=SOME.format(withdrawn=withdrawn))


def run(project: pytest.Pytester, results: str, *more: str) -> pytest.RunResult:
    project.makefile(".toml", three=THREE)
    project.syspathinsert()
    return project.runpytest(
        "--llm-matrix", "--llm-matrix-file=three.toml", "--llm-target=some:Target", f"--llm-results={results}",
        "--pyargs", "pytest_llmdevice.suite", *more,
    )  # fmt: skip


def causes(project: pytest.Pytester, results: str) -> set[tuple[str, str, str]]:
    (path,) = (project.path / results).glob("*.jsonl")
    (file,) = read(path)
    found = {
        (check.cell, str(check.cause), check.message)
        for check in file.checks
        if isinstance(check, Check) and check.outcome == "skipped" and check.check == "loads"
    }
    return found | {(cell, str(plan.cause), plan.reason) for cell, plan in file.planned.items() if plan.cause}


def test_what_is_not_offered_is_neither_red_nor_a_pass(project: pytest.Pytester) -> None:
    write(project, {"device-map"})
    result = run(project, "res")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["3 cells: 1 passed, 2 not run"])
    assert causes(project, "res") == {
        ("llama.cpu.fp32.none.device-map", "not offered", "not offered: device-map is not for us"),
        ("llama.cpu.bf16.none.to", "not offered", "not offered: bfloat16 needs a flag"),
    }


def test_an_offer_that_is_withdrawn_fails_the_gate(project: pytest.Pytester) -> None:
    write(project, set())
    assert run(project, "before").ret == 0
    assert "vanished" in FORCE_WORDS
    assert project.run("llmdevice", "gate", "before", "--baseline", "b.jsonl", "--update").ret == 0
    write(project, {"device-map"})
    assert run(project, "after").ret == 0
    gate = project.run("llmdevice", "gate", "after", "--baseline", "b.jsonl")
    assert gate.ret == 1
    gate.stdout.fnmatch_lines(["gate failed: * withdrawn*", "*device-map is not for us*"])


def test_an_offer_that_is_no_answer_ends_the_run_at_once(project: pytest.Pytester) -> None:
    project.makepyfile(
        some="""
        from pytest_llmdevice import BuiltinTarget

        class Target(BuiltinTarget):
            def offers(self, cell):
                pass
        """
    )
    result = run(project, "res")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*offers(llama.cpu.fp32.none.to) returned None: it says True, False, or why not*"])


def test_a_check_that_does_not_apply_is_listed_and_its_cell_has_passed(project: pytest.Pytester) -> None:
    project.makepyfile(
        some="""
        from pytest_llmdevice import BuiltinTarget, DoesNotApply

        class Target(BuiltinTarget):
            def logits(self, loaded, ids, mask):
                if not mask.all():
                    raise DoesNotApply("the model knows no padding")
                return loaded(input_ids=ids).logits
        """
    )
    result = run(project, "res", "--llm-report=md:r.md")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["3 cells: 3 passed", "Does not apply", "  3 cells: padding: the model knows no padding"]
    )
    assert "the model knows no padding" in (project.path / "r.md").read_text()
    assert "partly run" not in result.stdout.str()
