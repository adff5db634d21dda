"""`--llm-cell-timeout`: a cell that hangs fails with the place where it hung, and the other cells run on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

RunProcess = Callable[..., pytest.RunResult]

SUITE = "pytest_llmdevice.suite"

HANGING = """
import time
from pytest_llmdevice import Cell
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.zoo import checkpoint

# What a first load imports takes longer, on a busy machine, than the limits of these tests.
BuiltinTarget().load(str(checkpoint("llama")), Cell("llama", "cpu", "float32"))

class Target:
    def load(self, checkpoint, cell):
        if cell.dtype == "bfloat16":
            self.hang()
        return BuiltinTarget().load(checkpoint, cell)

class Sleeping(Target):
    def hang(self):
        time.sleep(1000)

class Swallowing(Target):
    def hang(self):
        for _ in range(2):
            try:
                time.sleep(1000)
            except BaseException:
                pass
        time.sleep(1000)

class Stubborn(Target):
    def hang(self):
        while True:
            try:
                time.sleep(1000)
            except BaseException:
                pass

class Generating(Target):
    def hang(self):
        pass
    def generate(self, model, prompts, max_new_tokens):
        time.sleep(1000)
"""

CELL = "llama.cpu.bf16.none.to"


@pytest.fixture
def hanging(project: pytest.Pytester) -> pytest.Pytester:
    """Loaders that hang in one of two cells."""
    project.makepyfile(hanging=HANGING)
    project.makeini("[pytest]\npythonpath = .\n")
    return project


def flags(target: str, seconds: float) -> tuple[str, ...]:
    return (
        "--llm-matrix", "--llm-matrix-file=two.toml", f"--llm-target=hanging:{target}",
        f"--llm-cell-timeout={seconds}", "--pyargs", SUITE,
    )  # fmt: skip


@pytest.mark.parametrize("target", ["Sleeping", "Swallowing"])
def test_a_load_that_hangs_fails_its_cell_once_and_the_others_run_on(hanging: pytest.Pytester, target: str) -> None:
    result = hanging.runpytest(*flags(target, 3), "-k", "test_loads or test_meta or test_mode")
    result.assert_outcomes(passed=3, errors=3, deselected=result.parseoutcomes()["deselected"])
    limit = "its time limit of 3 seconds (--llm-cell-timeout)"
    result.stdout.fnmatch_lines(
        [
            f"{CELL}: {limit} is over in the setup of test_loads?{CELL}?: the target was still loading it",
            "It was here (most recent call last):",
            '  File "*hanging.py", line *, in load',
            '  File "*hanging.py", line *, in hang',
            "and 2 more tests that failed for these reasons (-v shows all)",
            "2 cells: 1 error, 1 partly run",
            "1 problem",
            "1. error in 1 cell: loads, and 2 checks that follow from it",
            f"   cell     {CELL}",
            "   where    load",
            "   expected an end within 3 seconds",
            "   found    still running",
        ]
    )


def test_a_generate_that_hangs_fails_its_test_and_those_after_it(hanging: pytest.Pytester) -> None:
    result = hanging.runpytest(
        *flags("Generating", 3),
        "--llm-cell=dtype=bfloat16",
        "-v",
        "-k",
        "test_forward or test_generation or test_agreement",
    )
    result.assert_outcomes(passed=1, failed=1, errors=1, deselected=result.parseoutcomes()["deselected"])
    result.stdout.fnmatch_lines_random(
        [
            f"{CELL}: * is over in test_generation?{CELL}?: the target was still generating",
            '  File "*hanging.py", line *, in generate',
            f"{CELL}: not run: it had used up * in test_generation?{CELL}?",
        ]
    )


def test_the_time_of_a_cell_is_that_of_all_its_tests_and_of_no_others(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import time
        import pytest

        @pytest.mark.parametrize("number", range(3))
        def test_cell(llm_cell, number):
            time.sleep(1.2 if llm_cell.dtype == "bfloat16" else 0)

        def test_plain():
            time.sleep(4)
        """
    )
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=two.toml", "--llm-cell-timeout=3", ".")
    result.assert_outcomes(passed=6, failed=1)
    result.stdout.fnmatch_lines([f"{CELL}: its time limit * is over in test_cell*{CELL}*"])


def test_a_cleanup_that_hangs_is_interrupted_and_the_next_test_is_in_order(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import time
        import pytest
        from pytest_llmdevice.plugin import timeout_plugin

        timeout_plugin.TEARDOWN_SECONDS = 1.0

        @pytest.fixture
        def slow(llm_cell):
            yield
            if llm_cell.dtype == "float32":
                time.sleep(1000)

        def test_cell(llm_cell, slow): pass
        def test_again(llm_cell): pass
        """
    )
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=two.toml", "--llm-cell-timeout=1", ".")
    result.assert_outcomes(passed=3, errors=2)
    result.stdout.fnmatch_lines(["*: its time limit of 1 seconds * is over in the teardown of test_cell*"])


def test_what_is_made_for_all_cells_takes_no_time_of_one(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import time
        import pytest

        @pytest.fixture(scope="session")
        def llm_checkpoint(llm_cell):
            time.sleep(1.5)
            from pytest_llmdevice.zoo import checkpoint
            return checkpoint(llm_cell.model)

        def test_cell(llm_checkpoint): pass
        """
    )
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=one.toml", "--llm-cell-timeout=1", ".")
    result.assert_outcomes(passed=1)


def test_no_limit_is_kept_when_it_is_0_nor_in_the_time_of_a_debugger(project: pytest.Pytester) -> None:
    project.makepyfile("import time\n\ndef test_cell(llm_cell): time.sleep(1.5)")
    one = ("--llm-matrix", "--llm-matrix-file=one.toml", ".")
    project.runpytest(*one, "--llm-cell-timeout=0").assert_outcomes(passed=1)
    project.runpytest(*one, "--llm-cell-timeout=1").assert_outcomes(failed=1)
    project.makepyfile(
        """
        import time

        def test_cell(llm_cell, request):
            request.config.hook.pytest_enter_pdb(config=request.config, pdb=None)
            time.sleep(1.5)
        """
    )
    project.runpytest(*one, "--llm-cell-timeout=1").assert_outcomes(passed=1)


def test_the_ini_file_may_set_it_and_the_flag_wins(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\nllm_cell_timeout = 1\n")
    project.makepyfile("import time\n\ndef test_cell(llm_cell): time.sleep(1.5)")
    one = ("--llm-matrix", "--llm-matrix-file=one.toml", ".")
    project.runpytest(*one).assert_outcomes(failed=1)
    project.runpytest(*one, "--llm-cell-timeout=60").assert_outcomes(passed=1)


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf", ""])
@pytest.mark.parametrize("ini", [True, False])
def test_a_bad_limit_is_refused_in_one_line(project: pytest.Pytester, value: str, ini: bool) -> None:
    if ini:
        project.makeini(f"[pytest]\nllm_cell_timeout = {value}\n")
    args = [] if ini else [f"--llm-cell-timeout={value}"]
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=one.toml", *args, ".")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    line = f"ERROR: --llm-cell-timeout {value!r} is not a positive number of seconds, or 0 for no limit"
    assert line in result.stderr.str().splitlines()


def test_without_a_matrix_the_flag_is_refused(project: pytest.Pytester) -> None:
    result = project.runpytest("--llm-cell-timeout=3", ".")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --llm-cell-timeout: add --llm-matrix, without it no matrix is run"])


GRACE = "from pytest_llmdevice.plugin import timeout_plugin\ntimeout_plugin.GRACE_SECONDS = 2.0\n"


def test_what_cannot_be_interrupted_ends_the_run_with_a_message(
    hanging: pytest.Pytester, run_process: RunProcess
) -> None:
    hanging.makepyfile(grace=GRACE)
    result = run_process("-p", "grace", *flags("Stubborn", 3), "-k", "test_loads or test_meta")
    assert result.ret == 1
    over = f"{CELL}: its time limit of 3 seconds (--llm-cell-timeout) was over 2 seconds ago"
    result.stderr.fnmatch_lines(
        [
            f"{over}, in the setup of test_loads?{CELL}?. What runs there does not let itself be interrupted, so the *",
            '  File "*hanging.py", line *, in hang',
            "All threads:",
        ]
    )


def test_a_worker_keeps_the_limit_and_one_that_is_ended_fails_its_cell_and_no_other(
    hanging: pytest.Pytester, run_process: RunProcess
) -> None:
    hanging.makepyfile(
        grace=GRACE,
        mixed="""
        from hanging import Sleeping, Stubborn
        from pytest_llmdevice.loading.target import BuiltinTarget

        class Mixed:
            def load(self, checkpoint, cell):
                if cell.dtype != "float32":
                    (Sleeping if cell.dtype == "bfloat16" else Stubborn)().hang()
                return BuiltinTarget().load(checkpoint, cell)
        """,
    )
    (hanging.path / "two.toml").write_text(
        'models = "llama"\ndevices = "cpu"\ndtypes = ["float32", "bfloat16", "float16"]\n'
    )
    args = (
        *flags("Sleeping", 4),
        "--llm-target=mixed:Mixed",
        "-k",
        "test_loads or test_meta or test_mode",
        "-n1",
        "-v",
    )
    result = run_process("-p", "grace", *args)
    result.assert_outcomes(passed=3, failed=1, errors=5)
    ended = "llama.cpu.fp16.none.to"
    result.stdout.fnmatch_lines_random(
        [
            f"{CELL}: its time limit * is over in the setup of test_loads?{CELL}?: the target was still loading it",
            f"not run: the worker of this cell died in *::test_loads?{ended}?",
            f"worker 'gw*' crashed while running '*::test_loads?{ended}?'",
            "3 cells: 1 error, 1 aborted, 1 partly run",
            f"   cell     {ended}",
            f"   cell     {CELL}",
        ]
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="real cards are never shadowed")
def test_a_simulated_cell_is_interrupted_and_the_next_one_is_in_order(
    hanging: pytest.Pytester, no_cards: object
) -> None:
    (hanging.path / "two.toml").write_text(
        'models = "llama"\ndevices = "cuda:0"\ndtypes = ["bfloat16", "float32"]\nstrategies = "to"\n'
    )
    hanging.makepyfile(
        busy="""
        import torch
        from hanging import Target

        class Busy(Target):
            def hang(self):
                matrix = torch.randn(64, 64, device="cuda:0")
                while True:
                    matrix = torch.nn.functional.normalize(matrix @ matrix)
        """
    )
    result = hanging.runpytest(
        *flags("Sleeping", 3),
        "--llm-target=busy:Busy",
        "--llm-simulate=cuda:1",
        "-k",
        "test_loads or test_placement or test_forward",
    )
    result.assert_outcomes(passed=3, errors=3, deselected=result.parseoutcomes()["deselected"])
    result.stdout.fnmatch_lines(["2 cells: simulated: 1 error, 1 partly run"])
