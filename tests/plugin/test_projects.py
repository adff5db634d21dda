"""What a downstream project sees: paths and no paths, its own target, overridden fixtures, the shipped examples."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from answered_probe import PLUGIN, write_plugin
from forked_run import run_forked

from pytest_llmdevice.hardware import Inventory
from pytest_llmdevice.matrix import vocabulary

EACH = len(vocabulary.checks()) - 1
"""Tests of the suite on a cell; "cards" is one of those that run where something is simulated."""

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_without_paths_the_projects_own_tests_and_the_suite_run(project: pytest.Pytester) -> None:
    project.makepyfile(test_own="def test_own(llm_cell): pass\ndef test_plain(): pass")
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=one.toml", "-v")
    result.assert_outcomes(passed=EACH + 2, skipped=1)
    result.stdout.fnmatch_lines_random(["*test_own.py::test_own?llama*", "*test_cells.py::test_agreement?llama*"])


def test_testpaths_count_as_no_paths(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\ntestpaths = own\n")
    (project.mkdir("own") / "test_own.py").write_text("def test_own(llm_cell): pass")
    project.runpytest("--llm-matrix", "--llm-matrix-file=one.toml").assert_outcomes(passed=EACH + 1, skipped=1)


def test_with_a_path_only_that_runs(project: pytest.Pytester) -> None:
    project.makepyfile(test_own="def test_own(llm_cell): pass")
    project.runpytest("--llm-matrix", "--llm-matrix-file=one.toml", "test_own.py").assert_outcomes(passed=1)


def test_a_fixture_override_is_the_target_of_the_suite(project: pytest.Pytester) -> None:
    project.makeconftest(
        """
        import pytest
        from pytest_llmdevice import BuiltinTarget

        class Mine(BuiltinTarget):
            def load(self, checkpoint, cell):
                model = super().load(checkpoint, cell)
                model.mine = True
                return model

        @pytest.fixture(scope="session")
        def llm_target():
            return Mine()
        """
    )
    project.makepyfile(test_own="def test_own(llm_model): assert llm_model.mine")
    project.runpytest("--llm-matrix", "--llm-matrix-file=two.toml", "test_own.py").assert_outcomes(passed=2)
    project.runpytest("test_own.py").assert_outcomes(passed=1)


def test_an_overridden_target_without_load_is_told_the_contract(project: pytest.Pytester) -> None:
    project.makeconftest("import pytest\n\n@pytest.fixture(scope='session')\ndef llm_target(): return object()\n")
    project.makepyfile(test_own="def test_own(llm_model): pass")
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=one.toml", "test_own.py")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*target 'fixture llm_target' has no function 'load'*"])


def test_the_target_holds_without_a_matrix_too(project: pytest.Pytester) -> None:
    project.makepyfile(
        mine="""
        from pytest_llmdevice import BuiltinTarget
        target = BuiltinTarget()
        """,
        test_own="import mine\n\ndef test_own(llm_target): assert llm_target is mine.target",
    )
    project.syspathinsert()
    project.runpytest("--llm-target=mine:target", "test_own.py").assert_outcomes(passed=1)


def test_the_model_is_gone_before_the_next_cell_is_loaded(
    project: pytest.Pytester, run_process: Callable[..., pytest.RunResult]
) -> None:
    project.makefile(
        ".toml",
        offload="models = 'llama'\ndevices = 'cpu'\ndtypes = 'float32'\nstrategies = ['to', 'disk-offload', 'auto']\n",
    )
    project.makeconftest(
        """
        import weakref
        alive = []

        def pytest_llm_cell_loaded(model):
            assert not [reference for reference in alive if reference() is not None]
            alive.append(weakref.ref(model))
        """
    )
    project.makepyfile(test_own="def test_own(llm_model): pass")
    # Not in this process: pytester keeps the arguments of every hook call.
    result = run_process("--llm-matrix", "--llm-matrix-file=offload.toml", "test_own.py")
    result.assert_outcomes(passed=3)


def test_the_run_leaves_the_process_as_it_was(project: pytest.Pytester) -> None:
    project.makepyfile(
        careless="""
        import os, random, torch
        from pytest_llmdevice import BuiltinTarget

        class Target(BuiltinTarget):
            def load(self, checkpoint, cell):
                model = super().load(checkpoint, cell)
                os.environ["CARELESS"] = "1"
                random.seed(1)
                torch.manual_seed(1)
                torch.set_default_dtype(torch.bfloat16)
                torch.set_grad_enabled(False)
                return model
        """,
        test_own="""
        import os, random, torch

        def state():
            return (os.environ.get("CARELESS"), random.getstate(), torch.get_rng_state().tolist(),
                    torch.get_default_dtype(), torch.is_grad_enabled())

        before = state()

        def test_own(llm_model): assert state() == before
        """,
    )
    project.syspathinsert()
    project.runpytest(
        "--llm-matrix", "--llm-matrix-file=two.toml", "--llm-target=careless:Target", "test_own.py"
    ).assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("example", "cells", "own"),
    [
        ("infolens", "21 cells: 1 passed, *", "test_logits.py"),
        ("ibench", "38 cells: 1 passed, *", "test_local"),
    ],
)
def test_the_examples_pass(
    project: pytest.Pytester,
    inventory: Inventory,
    example: str,
    cells: str,
    own: str,
) -> None:
    folder = project.path / example
    shutil.copytree(EXAMPLES / example, folder, ignore=shutil.ignore_patterns("__pycache__"))
    # Processes of their own: each brings packages that must not stay in this one.
    write_plugin(folder, inventory)
    cell = "model=qwen3,device=cpu,dtype=float32,quantization=none,strategy=to"
    result = run_forked(folder, "-p", PLUGIN, "--llm-matrix", "-v", "--llm-cell", cell)
    assert result.ret == 0
    result.stdout.fnmatch_lines([cells])
    result.stdout.fnmatch_lines_random([f"*{own}*PASSED*"])
