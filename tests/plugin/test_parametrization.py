"""With `--llm-matrix` a test that asks for a cell runs once for each cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from pytest_llmdevice.hardware import Inventory

ASKS_FOR_A_CELL = """
    def test_direct(llm_cell): pass
    def test_through_another_fixture(llm_dtype): pass
    def test_plain(): pass
"""

FOUR_DEVICES = """
models = ["llama", "gpt2"]
devices = ["cpu", "cuda:0", "rocm:0", "mps"]
dtypes = ["float32"]
"""


def run(project: pytest.Pytester, *args: str, matrix: str = "two.toml") -> pytest.RunResult:
    """Run the tests of the project itself, without the suite."""
    return project.runpytest("--llm-matrix", "--llm-matrix-file", matrix, "-p", "no:cacheprovider", "-ra", *args, ".")


def test_each_test_runs_on_each_cell(project: pytest.Pytester) -> None:
    project.makepyfile(ASKS_FOR_A_CELL)
    result = run(project, "-v")
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines_random(
        [
            "*::test_direct?llama.cpu.fp32.none.to? PASSED*",
            "*::test_direct?llama.cpu.bf16.none.to? PASSED*",
            "*::test_through_another_fixture?llama.cpu.bf16.none.to? PASSED*",
            "*::test_plain PASSED*",
        ]
    )


def test_the_id_of_a_cell_stands_unbroken_between_stacked_parameters(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("length", [3, 5])
        def test_lengths(length, llm_cell): pass
        """
    )
    result = run(project, "-v", matrix="one.toml")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines_random(["*test_lengths?llama.cpu.fp32.none.to-3?*"])


def test_missing_devices_are_skipped_with_the_reason_and_never_vanish(project: pytest.Pytester) -> None:
    project.makepyfile("def test_cell(llm_cell): pass")
    project.makefile(".toml", four=FOUR_DEVICES)
    result = run(project, matrix="four.toml")
    result.assert_outcomes(passed=2, skipped=6)
    result.stdout.fnmatch_lines_random(
        [
            "SKIPPED ?2?*absent: no cuda:0 here (this machine has cpu*",
            "SKIPPED ?2?*absent: no rocm:0 here (this machine has cpu*",
            "SKIPPED ?2?*absent: no mps here (this machine has cpu*",
            "8 cells: 2 partly run, 6 not run",
        ]
    )


@pytest.mark.parametrize(
    ("expression", "count"),
    [
        ("llm_cell(device='cpu')", 2),
        ("llm_cell(device='cuda:0', kind='cuda')", 2),
        ("llm_cell(model='gpt2')", 4),
        ("llm_cell(dtype='float16')", 0),
    ],
)
def test_cells_are_chosen_by_marker_expression(project: pytest.Pytester, expression: str, count: int) -> None:
    project.makepyfile("def test_cell(llm_cell): pass")
    project.makefile(".toml", four=FOUR_DEVICES)
    result = run(project, "-m", expression, "--collect-only", "-q", matrix="four.toml")
    assert sum("test_cell[" in line for line in result.outlines) == count


@pytest.mark.parametrize(
    ("expressions", "ids"),
    [
        (["dtype=bfloat16"], ["llama.cpu.bf16.none.to"]),
        (["llama.cpu.fp32.none.to"], ["llama.cpu.fp32.none.to"]),
        (["*.bf16.*"], ["llama.cpu.bf16.none.to"]),
        (["dtype=float32", "dtype=bfloat16"], ["llama.cpu.fp32.none.to", "llama.cpu.bf16.none.to"]),
        (["device=cpu,dtype=bf*|float16"], ["llama.cpu.bf16.none.to"]),
    ],
)
def test_llm_cell_narrows_and_deselects_the_rest(
    project: pytest.Pytester, expressions: list[str], ids: list[str]
) -> None:
    project.makepyfile("def test_cell(llm_cell): pass\ndef test_plain(): pass")
    flags = [f"--llm-cell={expression}" for expression in expressions]
    result = run(project, "-v", *flags)
    result.assert_outcomes(passed=len(ids) + 1, deselected=2 - len(ids))
    result.stdout.fnmatch_lines_random([f"*test_cell?{cell_id}? PASSED*" for cell_id in ids])
    if len(ids) == 1:
        result.stdout.fnmatch_lines(["*not requested: --llm-cell leaves it out*"])


def test_a_selection_without_tests_is_not_green(project: pytest.Pytester) -> None:
    project.makepyfile("def test_cell(llm_cell): pass")
    assert run(project, "-k", "no_such_test").ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_the_matrix_marker_narrows_a_test_and_classes_add_up(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.mark.llm_matrix(devices=["cpu", "cuda:*"])
        class TestThings:
            @pytest.mark.llm_matrix(models="gpt2")
            def test_narrow(self, llm_cell): pass

        @pytest.mark.llm_matrix(dtypes="float16")
        def test_none(llm_cell): pass
        """
    )
    project.makefile(".toml", four=FOUR_DEVICES)
    result = run(project, "-v", matrix="four.toml")
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines_random(
        [
            "*test_narrow?gpt2.cpu.fp32.none.to? PASSED*",
            "*test_narrow?gpt2.cuda0.fp32.none.to? SKIPPED*",
            "SKIPPED*not requested: no cell of the matrix fits llm_matrix(dtypes='float16')",
        ]
    )


def test_needs_that_the_machine_has_not_skip_the_test(
    project: pytest.Pytester, inventory: Inventory, known_probe: Callable[[Inventory], None]
) -> None:
    small = replace(inventory, devices=tuple(replace(device, memory=4 * 2**30) for device in inventory.devices))
    known_probe(small)
    project.makepyfile(
        """
        import pytest

        @pytest.mark.llm_requires(memory="8GiB")
        def test_memory(llm_cell): pass

        @pytest.mark.llm_requires(memory="2GiB", devices=1, packages="torch>=2")
        def test_enough(llm_cell): pass

        @pytest.mark.llm_requires(devices=2)
        def test_devices(llm_cell): pass

        @pytest.mark.llm_requires(packages=["no-such-package"])
        def test_package(llm_cell): pass
        """
    )
    result = run(project, matrix="one.toml")
    result.assert_outcomes(passed=1, skipped=3)
    result.stdout.fnmatch_lines_random(["SKIPPED*8 GiB*", "SKIPPED*2*devices*", "SKIPPED*no-such-package*"])


def test_the_cell_is_in_the_user_properties(project: pytest.Pytester) -> None:
    project.makepyfile("def test_cell(llm_cell): pass")
    run(project, "--junitxml=out.xml", matrix="one.toml").assert_outcomes(passed=1)
    properties = {
        element.attrib["name"]: element.attrib["value"]
        for element in ET.parse(project.path / "out.xml").iter("property")
    }
    assert properties["llm.cell"] == "llama.cpu.fp32.none.to"
    assert properties["llm.device"] == "cpu"
    assert properties["llm.quantization"] == "none"
    assert properties["llm.simulated"] == "False"


def test_the_header_says_what_is_here_and_what_runs(project: pytest.Pytester) -> None:
    project.makepyfile("def test_cell(llm_cell): pass")
    project.makefile(".toml", four=FOUR_DEVICES)
    run(project, matrix="four.toml").stdout.fnmatch_lines(
        ["llm matrix four.toml: 8 cells, 2 run here, 6 absent", "  cpu: *float32*"]
    )


def test_a_failed_probe_is_a_verdict_on_every_cell(
    project: pytest.Pytester, known_probe: Callable[[Inventory], None]
) -> None:
    known_probe(Inventory(failure="crashed with signal 11 (SIGSEGV)"))
    project.makepyfile("def test_cell(llm_cell): pass")
    result = run(project)
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED*unusable: the hardware probe failed: crashed with signal 11 (SIGSEGV)"])
