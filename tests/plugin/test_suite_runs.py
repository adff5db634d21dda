"""The suite on real cells: what passes, what fails and how that reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pytest_llmdevice.matrix import vocabulary
from pytest_llmdevice.zoo import checkpoint

EACH = len(vocabulary.checks()) - 1
"""Tests of the suite on a cell; "cards" is one of those that run where something is simulated."""

SUITE = "pytest_llmdevice.suite"


@pytest.fixture
def broken(project: pytest.Pytester) -> Path:
    """A private copy of a checkpoint, and a matrix of it beside a good one."""
    copy = project.path / "broken"
    shutil.copytree(checkpoint("llama"), copy)
    project.makefile(".toml", both='models = ["path:broken", "gpt2"]\ndevices = "cpu"\ndtypes = "float32"\n')
    return copy


def run_both(project: pytest.Pytester) -> pytest.RunResult:
    return project.runpytest("--llm-matrix", "--llm-matrix-file=both.toml", "--pyargs", SUITE, "-rfE")


def test_every_check_passes_on_a_plain_cell(project: pytest.Pytester) -> None:
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=one.toml", "--pyargs", SUITE)
    result.assert_outcomes(passed=EACH, skipped=1)
    result.stdout.fnmatch_lines(["1 cell: 1 passed"])


def test_without_a_matrix_the_suite_checks_the_reference_cell(project: pytest.Pytester) -> None:
    project.runpytest("--pyargs", SUITE).assert_outcomes(passed=EACH, skipped=1)


def test_truncated_weights_fail_that_cell_with_the_cause_and_the_others_go_on(
    project: pytest.Pytester, broken: Path
) -> None:
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    result = run_both(project)
    result.stdout.fnmatch_lines_random(["path-broken.cpu.fp32.none.to did not load: SafetensorError: *"])
    result.stdout.fnmatch_lines(["2 cells: 1 error, 1 passed", "   cell     path-broken.cpu.fp32.none.to"])


def test_broken_json_fails_that_cell_with_the_cause(project: pytest.Pytester, broken: Path) -> None:
    (broken / "config.json").write_text("{not json")
    result = run_both(project)
    result.stdout.fnmatch_lines_random(["path-broken.cpu.fp32.none.to did not load: *config.json*"])
    result.stdout.fnmatch_lines(["2 cells: 1 error, 1 passed"])


def test_a_missing_tokenizer_fails_that_cell_with_the_cause(project: pytest.Pytester, broken: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (broken / name).unlink(missing_ok=True)
    result = run_both(project)
    result.stdout.fnmatch_lines_random(["path:broken: its tokenizer does not load: *"])
    result.stdout.fnmatch_lines(["2 cells: 1 error, 1 passed"])


def test_a_checkpoint_saved_in_another_dtype_is_loaded_in_the_cells(project: pytest.Pytester, broken: Path) -> None:
    config = json.loads((broken / "config.json").read_text())
    config["dtype"] = "bfloat16"
    (broken / "config.json").write_text(json.dumps(config))
    run_both(project).assert_outcomes(passed=2 * EACH, skipped=1)


BUGGY = """
import torch
from transformers import AutoModelForCausalLM

class Float32:
    def load(self, checkpoint, cell):
        return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).to(cell.device).eval()

class Training:
    def load(self, checkpoint, cell):
        return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype).train()

class Text:
    def load(self, checkpoint, cell):
        return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype).eval()
    def generate(self, model, prompts, max_new_tokens):
        return ["a text" for _ in prompts]

class Raising(Text):
    def generate(self, model, prompts, max_new_tokens):
        raise RuntimeError("no kernel")
"""


@pytest.mark.parametrize(
    ("target", "failing", "line"),
    [
        (
            "Float32",
            {"dtypes", "forward", "prefix", "save"},
            "dtypes of llama.*: *expected bfloat16, found float32 (and *",
        ),
        ("Training", {"mode"}, "mode of llama.*: the model: expected eval mode, found training mode"),
        (
            "Text",
            {"inputs", "generation"},
            "generation of *: expected 3 lists of new token ids, one for each prompt, found *",
        ),
        ("Raising", {"inputs", "generation"}, "generation of *: expected no exception, found RuntimeError: no kernel"),
    ],
)
def test_a_buggy_target_fails_the_checks_it_should_and_no_others(
    project: pytest.Pytester, target: str, failing: set[str], line: str
) -> None:
    project.makepyfile(buggy=BUGGY)
    project.syspathinsert()
    result = project.runpytest(
        "--llm-matrix", "--llm-matrix-file=two.toml", "--llm-cell=dtype=bfloat16",
        f"--llm-target=buggy:{target}", "--pyargs", SUITE, "-v",
    )  # fmt: skip
    result.stdout.fnmatch_lines_random([f"FAILED *::test_{check}?llama.cpu.bf16.none.to?*" for check in failing])
    result.assert_outcomes(passed=EACH - len(failing), failed=len(failing), skipped=1, deselected=EACH)
    result.stdout.fnmatch_lines_random([line])


def test_an_expected_failure_is_reported_with_its_reason_and_source(project: pytest.Pytester) -> None:
    project.makefile(
        ".toml",
        moe="""
        extends = "default"
        models = "mixtral"
        devices = "cpu"
        dtypes = "float32"
        coverage = "full"
        quantization = "nf4"
        strategies = "to"
        """,
    )
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=moe.toml", "--pyargs", SUITE, "-rx")
    import transformers

    if transformers.__version__.startswith("4."):
        result.assert_outcomes(passed=EACH, skipped=1)
    else:
        result.assert_outcomes(passed=EACH - 1, skipped=1, xfailed=1)
        result.stdout.fnmatch_lines(["XFAIL *test_quantization?mixtral*3-D parameter*bitsandbytes/issues/1849*"])


def test_a_stale_expectation_fails(project: pytest.Pytester) -> None:
    (project.path / "stale.toml").write_text(
        'extends = "one.toml"\n[[expect]]\nmodels = "llama"\nchecks = "dtypes"\nxfail = "was broken once"\n'
    )
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=stale.toml", "--pyargs", SUITE)
    result.assert_outcomes(passed=EACH - 1, failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*XPASS(strict)*was broken once*"])


SLIGHTLY_OFF = """
from pytest_llmdevice import BuiltinTarget

def load(checkpoint, cell):
    model = BuiltinTarget().load(checkpoint, cell)
    model.lm_head.weight.data *= 1.0005
    return model
"""


def test_the_tolerance_of_the_matrix_holds(project: pytest.Pytester) -> None:
    project.makepyfile(slightly_off=SLIGHTLY_OFF)
    (project.path / "tight.toml").write_text(
        'extends = "two.toml"\n[[expect]]\ndtypes = "float32"\nchecks = "agreement"\ntolerance = 1e-4\n'
    )
    project.syspathinsert()
    arguments = ("--llm-matrix", "--llm-target=slightly_off", "--pyargs", SUITE, "-k", "agreement")
    project.runpytest(*arguments, "--llm-matrix-file=two.toml").assert_outcomes(passed=2, deselected=2 * EACH - 1)
    result = project.runpytest(*arguments, "--llm-matrix-file=tight.toml")
    result.assert_outcomes(passed=1, failed=1, deselected=2 * EACH - 1)
    result.stdout.fnmatch_lines(["agreement of llama.cpu.fp32.none.to: *relative error at most 0.0001*"])


@pytest.mark.parametrize(("device", "code"), [("cpu", pytest.ExitCode.OK), ("cuda:0", pytest.ExitCode.TESTS_FAILED)])
def test_required_coverage_that_did_not_pass_fails_the_run(
    project: pytest.Pytester, device: str, code: pytest.ExitCode
) -> None:
    (project.path / "required.toml").write_text(
        'models = "llama"\ndevices = ["cpu", "cuda:0"]\ndtypes = "float32"\n'
        f'[require]\nmodels = "*"\ndevices = "{device}"\nchecks = "dtypes"\n'
    )
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=required.toml", "--pyargs", SUITE, "-k", "dtypes")
    assert result.ret == code
    if code != pytest.ExitCode.OK:
        result.stdout.fnmatch_lines(["?require? not met: device cuda:0: none of its 1 cells passed on real hardware"])


def test_a_cell_that_was_not_put_to_all_checks_is_no_coverage(project: pytest.Pytester) -> None:
    (project.path / "required.toml").write_text(
        'models = "llama"\ndevices = "cpu"\ndtypes = "float32"\n[require]\nmodels = "*"\n'
    )
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=required.toml", "--pyargs", SUITE, "-k", "dtypes")
    result.assert_outcomes(passed=1, deselected=EACH)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["  1 cell: without * checks *", "?require? not met: model llama: none of its 1 cells passed on real hardware"]
    )


def test_hooks_see_every_load_and_every_check(project: pytest.Pytester) -> None:
    project.makeconftest(
        """
        seen = []
        def pytest_llm_cell_loaded(cell, model, seconds):
            seen.append(f"loaded {cell} {type(model).__name__} {seconds > 0}")
        def pytest_llm_check(cell, result):
            assert result.passed and result.evidence
            seen.append(result.check)
        def pytest_unconfigure():
            print("SEEN", *seen, sep=" | ")
        """
    )
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=one.toml", "-s", "--pyargs", SUITE)
    result.stdout.fnmatch_lines(
        [
            "SEEN | loaded llama.cpu.fp32.none.to LlamaForCausalLM True | loads | meta | placement | dtypes | *",
        ]
    )
