"""What plugins add to the registry by the hook `pytest_llm_register` is used like what is built in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from forked_run import run_forked

from pytest_llmdevice.hardware import Inventory
from pytest_llmdevice.matrix.vocabulary import checks, strategies

EXAMPLE = Path(__file__).parents[1] / "examples" / "extension"
SUITE = ("-p", "no:cacheprovider", "--pyargs", "pytest_llmdevice.suite")


@pytest.fixture
def example(project: pytest.Pytester, no_cards: Inventory) -> pytest.Pytester:
    """A project with the example's conftest and matrix."""
    for name in ("conftest.py", "own.toml"):
        shutil.copy(EXAMPLE / name, project.path)
    return project


def test_the_example_runs_with_its_own_check_strategy_family_and_profile(example: pytest.Pytester) -> None:
    result = example.runpytest(
        "--llm-matrix",
        "--llm-matrix-file=own.toml",
        "--llm-simulate=cuda-small",
        "-v",
        "-k",
        "loads or placement or values or small_weights",
        *SUITE,
    )
    assert result.ret == 0
    result.assert_outcomes(passed=14, xfailed=2)
    result.stdout.fnmatch_lines(
        [
            "  simulated cuda-small:1: cuda:0 as Small Card, 1 GiB*",
            "*::test_loads?wide-llama.cpu.fp32.none.tensor-by-tensor? PASSED*",
            "*::test_small_weights?wide-llama.cpu.fp32.none.tensor-by-tensor? PASSED*",
            "*::test_small_weights?wide-llama.cpu.bf16.none.tensor-by-tensor? XFAIL*",
            "*::test_placement?wide-llama.cuda0.bf16.none.tensor-by-tensor.sim? PASSED*",
        ]
    )


def test_the_order_of_the_tests_is_that_of_the_registry(example: pytest.Pytester) -> None:
    result = example.runpytest("--llm-matrix", "--llm-matrix-file=own.toml", "--collect-only", "-q", *SUITE)
    names = [line.partition("::test_")[2].partition("[")[0] for line in result.outlines if "::test_" in line]
    order = list(dict.fromkeys(names))
    assert order[order.index("values") + 1] == "small_weights"
    assert set(order) == {*checks(), "small_weights"}


def test_what_a_run_added_is_gone_with_it(example: pytest.Pytester) -> None:
    example.runpytest("--llm-matrix", "--llm-matrix-file=own.toml", "--collect-only", "-q", *SUITE)
    assert "small_weights" not in checks()
    assert "tensor-by-tensor" not in strategies()


def test_a_rule_of_an_own_strategy_decides_which_cells_run(example: pytest.Pytester) -> None:
    example.makefile(
        ".toml",
        quantized="""
        models = "wide-llama"
        devices = "cpu"
        dtypes = "float32"
        quantization = ["none", "nf4"]
        strategies = "tensor-by-tensor"
        """,
    )
    result = example.runpytest("--llm-matrix", "--llm-matrix-file=quantized.toml", "-k", "loads", "-rs", *SUITE)
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*unsupported: packed weights have a state that would stay behind"])


def test_without_the_plugin_a_matrix_says_which_names_there_are(project: pytest.Pytester) -> None:
    shutil.copy(EXAMPLE / "own.toml", project.path)
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=own.toml", *SUITE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*unknown model 'wide-llama'*", "*unknown strategy 'tensor-by-tensor'*"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "registry.add(Strategy('to', 'again', print))",
            "strategy 'to': field 'name': pytest-llmdevice has registered one of this name",
        ),
        ("registry.add(Strategy('by hand', 'a loop', print))", "strategy 'by hand': field 'name': must be letters*"),
        ("registry.add(Strategy('by-hand', 'a loop', None))", "strategy 'by-hand': field 'load': must be a function*"),
        ("registry.add('by-hand')", "'by-hand' is no entry: register a check, *"),
        ("Strategy()", "TypeError: *missing 3 required positional arguments*"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_bad_entry_is_one_usage_error_that_names_the_plugin(
    body: str, message: str, project: pytest.Pytester
) -> None:
    project.makeconftest(f"from pytest_llmdevice import Strategy\n\ndef pytest_llm_register(registry):\n    {body}\n")
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=one.toml", *SUITE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: plugin *conftest.py, hook pytest_llm_register: {message}"])


def test_a_conftest_that_is_read_too_late_is_an_error_and_not_overlooked(project: pytest.Pytester) -> None:
    folder = project.mkdir("deep")
    (folder / "conftest.py").write_text("def pytest_llm_register(registry): ...\n")
    (folder / "test_deep.py").write_text("def test_cell(llm_cell): ...\n")
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=one.toml", str(project.path))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*plugin *deep*conftest.py, hook pytest_llm_register: it was read after the matrix; move the function to *"]
    )


def test_without_the_matrix_no_plugin_is_asked(project: pytest.Pytester) -> None:
    project.makeconftest("def pytest_llm_register(registry): raise RuntimeError('asked')\n")
    project.makepyfile("def test_nothing(): pass")
    project.runpytest().assert_outcomes(passed=1)


OWN_LIBRARY = """
from dataclasses import replace

from pytest_llmdevice import Quantization
from pytest_llmdevice.matrix.registry import built_in

def smoke_test(device, dtype):
    import torch
    exact = torch.ones(2, dtype=torch.float64)
    return exact.to(getattr(torch, dtype)), exact, 0.1

def pytest_llm_register(registry):
    nf4 = built_in().of(Quantization)["nf4"]
    registry.add(replace(nf4, name="own4", smoke_test=smoke_test))
    registry.add(replace(nf4, name="absent4", library="no-such-library", install="no-such-library>=2", rules=()))
"""


def test_a_quantization_is_probed_in_the_probes_own_process(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(OWN_LIBRARY)
    pytester.makefile(
        ".toml",
        own="""
        models = "llama"
        devices = "cpu"
        dtypes = "float32"
        quantization = ["own4", "absent4"]
        """,
    )
    result = run_forked(pytester.path, "--llm-matrix", "--llm-matrix-file=own.toml", "--collect-only", *SUITE)
    result.stdout.fnmatch_lines(["llm matrix own.toml: 2 cells, 1 run here, 1 unusable", "  cpu: *fp4 own4"])
    result = run_forked(pytester.path, "--llm-matrix", "--llm-matrix-file=own.toml", "-k", "absent4", "-rs", *SUITE)
    result.stdout.fnmatch_lines(["*absent4 probe: no-such-library is not installed; install no-such-library>=2"])
