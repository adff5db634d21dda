"""Targets that keep to no contract: their cell fails with a sentence that says so, and the run goes on."""

from __future__ import annotations

import pytest

SUITE = "pytest_llmdevice.suite"

BAD = """
import torch
from pytest_llmdevice.loading.target import BuiltinTarget

class Target:
    def load(self, checkpoint, cell):
        model = BuiltinTarget().load(checkpoint, cell)
        return model if cell.dtype == "float32" else self.bad(model)

class Nothing(Target):
    def bad(self, model): pass

class Pair(Target):
    def bad(self, model): return "model", "tokenizer"

class Weights(Target):
    def bad(self, model): return model.state_dict()

class Two(Target):
    def bad(self, model):
        from types import SimpleNamespace
        return SimpleNamespace(large=model, small=type(model)(model.config))

class Coroutine(Target):
    def bad(self, model):
        async def load(): return model
        return load()

class Raising(Target):
    def bad(self, model):
        raise RuntimeError("found at least two devices, cuda:0 and cpu\\nand more") from KeyError("inner")

class Exiting(Target):
    def bad(self, model): raise SystemExit("usage: load [-h]")

class Recursive(Target):
    def bad(self, model): return self.bad(model)

class Importing(Target):
    def bad(self, model): raise ImportError("libcudart.so.11: cannot open shared object file")

class ExitingLater(Target):
    def bad(self, model): return model
    def generate(self, model, prompts, max_new_tokens): raise SystemExit(4)

class Skipping(Target):
    def bad(self, model):
        import pytest
        pytest.skip("not on a Monday")
"""


def run(project: pytest.Pytester, target: str, *args: str) -> pytest.RunResult:
    project.makepyfile(bad=BAD)
    project.syspathinsert()
    return project.runpytest(
        "--llm-matrix", "--llm-matrix-file=two.toml", f"--llm-target=bad:{target}", "--pyargs", SUITE, *args
    )


CELL = "llama.cpu.bf16.none.to"


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("Nothing", f"{CELL}: load returned None, not a torch.nn.Module: is its `return` missing?"),
        ("Pair", f"{CELL}: load returned a tuple of str and str, not a torch.nn.Module"),
        ("Weights", f"{CELL}: load returned an OrderedDict of * tensors, not a *: a state dict is not a model; *"),
        ("Two", f"{CELL}: load returned SimpleNamespace with several modules: *: say which one in model(loaded)"),
        ("Coroutine", f"{CELL}: load returned a coroutine, not a *: load is called without await*"),
    ],
)
def test_a_cell_that_gets_no_module_says_what_it_got_and_what_the_contract_is(
    project: pytest.Pytester, target: str, line: str
) -> None:
    result = run(project, target, "-k", "test_loads or test_meta")
    result.assert_outcomes(passed=2, errors=2, deselected=result.parseoutcomes()["deselected"])
    result.stdout.fnmatch_lines([line, "a target is an object or a module with load(checkpoint: str, cell: *"])
    result.stdout.fnmatch_lines(["2 cells: 1 error, 1 partly run"])


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("Exiting", f"{CELL} did not load: SystemExit: usage: load * (the loader ends the process: load must return*"),
        ("Recursive", f"{CELL} did not load: RecursionError: maximum recursion depth exceeded*"),
        ("Importing", f"{CELL} did not load: ImportError: libcudart.so.11: cannot open shared object file"),
    ],
)
def test_a_load_that_raises_fails_its_cell_whatever_it_raises(project: pytest.Pytester, target: str, line: str) -> None:
    result = run(project, target, "-k", "test_loads or test_meta")
    result.assert_outcomes(passed=2, errors=2, deselected=result.parseoutcomes()["deselected"])
    result.stdout.fnmatch_lines([line])


def test_a_generate_that_exits_fails_its_test(project: pytest.Pytester) -> None:
    result = run(project, "ExitingLater", "-k", "test_generation and bf16")
    result.assert_outcomes(failed=1, deselected=result.parseoutcomes()["deselected"])
    result.stdout.fnmatch_lines([f"generation of {CELL}: generation: expected no exception, found SystemExit: 4*"])


def test_a_target_may_skip(project: pytest.Pytester) -> None:
    result = run(project, "Skipping", "-k", "test_loads", "-rs")
    result.assert_outcomes(passed=1, skipped=1, deselected=result.parseoutcomes()["deselected"])
    result.stdout.fnmatch_lines(["SKIPPED*not on a Monday"])


def test_what_failed_to_load_is_told_once_with_its_hint_and_then_in_one_line(project: pytest.Pytester) -> None:
    result = run(project, "Raising", "-k", "test_loads or test_meta or test_mode", "-v")
    result.assert_outcomes(passed=3, errors=3, deselected=result.parseoutcomes()["deselected"])
    text = result.stdout.str()
    assert text.count("Traceback (most recent call last)") == 1
    first = f"{CELL} did not load: RuntimeError: found at least two devices, cuda:0 and cpu"
    result.stdout.fnmatch_lines(
        [
            f"*ERROR at setup of test_loads?{CELL}?*",
            first,
            "hint: an operation met tensors of two devices*",
            f"*ERROR at setup of test_meta?{CELL}?*",
            f"{first} -- see test_loads?{CELL}?",
            f"*ERROR at setup of test_mode?{CELL}?*",
            f"{first} -- see test_loads?{CELL}?",
        ]
    )


def test_a_projects_own_tests_get_the_full_report_at_their_first(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_own="""
        def test_one(llm_model): ...
        def test_two(llm_model): ...
        """,
        bad=BAD,
    )
    project.syspathinsert()
    flags = ("--llm-matrix", "--llm-matrix-file=two.toml", "--llm-target=bad:Raising")
    result = project.runpytest(*flags, "--llm-cell=dtype=bfloat16", "-v", "test_own.py")
    result.assert_outcomes(errors=2, deselected=2)
    assert result.stdout.str().count("in bad\n") == 1
    result.stdout.fnmatch_lines(["*-- see test_one?llama.cpu.bf16.none.to?"])
