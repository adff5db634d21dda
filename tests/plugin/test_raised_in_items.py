"""Whatever a target or a test raises, its cell fails and those after it run; only a user interrupts a run."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from pytest_llmdevice.results.store import read

RunProcess = Callable[..., pytest.RunResult]

MATRIX = """
models = ["llama", "gpt2", "qwen2", "qwen3", "gemma3", "mixtral"]
devices = "cpu"
dtypes = ["float32", "bfloat16", "float16"]
"""

OWN = """
import asyncio
import pytest

class Own(BaseException):
    pass

class Unprintable(BaseException):
    def __str__(self):
        raise Own("no text")

RAISED = {
    "llama": Own("mine"),
    "gpt2": Unprintable(),
    "qwen2": GeneratorExit(),
    "qwen3": asyncio.CancelledError(),
    "gemma3": KeyboardInterrupt(),
    "mixtral": SystemExit(3),
}

@pytest.fixture(scope="session")
def made(llm_cell):
    if llm_cell.dtype == "float32":
        raise RAISED[llm_cell.model]
    yield llm_cell
    if llm_cell.dtype == "float16":
        raise RAISED[llm_cell.model]

@pytest.fixture(scope="session")
def before(llm_cell):
    yield
    with open("torn.log", "a") as log:
        log.write(f"{llm_cell}\\n")

def test_first(before, made, llm_cell):
    if llm_cell.dtype == "bfloat16":
        raise RAISED[llm_cell.model]

def test_next(before, made, llm_cell):
    assert made == llm_cell
"""


def test_what_fixtures_tests_and_teardowns_raise_fails_their_cell_and_no_other(
    pytester: pytest.Pytester, run_process: RunProcess
) -> None:
    pytester.makefile(".toml", m=MATRIX)
    pytester.makepyfile(test_own=OWN, target="def load(checkpoint, cell): ...")
    pytester.makeini("[pytest]\npythonpath = .\n")
    flags = ("--llm-matrix", "--llm-matrix-file=m.toml", "--llm-target=target", "--llm-results=results", ".")
    result = run_process(*flags)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    (file,) = read(pytester.path / "results")
    found = {(check.cell, check.check.rpartition("_")[2]): check.outcome for check in file.checks}
    assert len(found) == 36
    for (cell, test), outcome in found.items():
        if "fp32" in cell:
            assert outcome == "error", (cell, test)
        elif "bf16" in cell:
            assert outcome == ("failed" if test == "first" else "passed"), (cell, test)
        else:
            # pytest tears a cell down in the setup of the next one, and the last of all with its own last test.
            last = (cell, test) == ("mixtral.cpu.fp16.none.to", "next")
            assert outcome == ("error" if last else "passed"), (cell, test)
    assert len((pytester.path / "torn.log").read_text().split()) == 18
    result.stdout.fnmatch_lines_random(
        [
            "gemma3.cpu.fp32.none.to: KeyboardInterrupt was raised in test_next*, and no user has interrupted",
            "gemma3.cpu.bf16.none.to: KeyboardInterrupt was raised in test_first*, and no user has interrupted",
            "E*Own: mine",
        ]
    )


BAD = """
import weakref
from pytest_llmdevice.loading.target import BuiltinTarget

class Own(BaseException):
    pass

class Unprintable(BaseException):
    def __str__(self):
        raise Own("no text")

class Thing:
    pass

def raising(*_):
    raise Own("in a callback")

def generator():
    try:
        yield
    finally:
        raise Own("in a generator")

class Target:
    def load(self, checkpoint, cell):
        model = BuiltinTarget().load(checkpoint, cell)
        return model if cell.dtype == "float32" else self.bad(model)

class Raising(Target):
    def bad(self, model): raise Own("mine")

class Mute(Target):
    def bad(self, model): raise Unprintable

class Interrupting(Target):
    def bad(self, model): raise KeyboardInterrupt

class Later(Target):
    def bad(self, model): return model
    def generate(self, model, prompts, max_new_tokens):
        if model.dtype.itemsize == 4:
            return BuiltinTarget().generate(model, prompts, max_new_tokens)
        raise self.error

class RaisingLater(Later):
    error = Own("mine")

class InterruptingLater(Later):
    error = KeyboardInterrupt()

class InCallbacks(Target):
    def bad(self, model):
        thing = Thing()
        self.kept = weakref.ref(thing, raising)
        del thing
        waiting = generator()
        next(waiting)
        del waiting
        return model
"""

CELL = "llama.cpu.bf16.none.to"


def run(project: pytest.Pytester, target: str, *args: str) -> pytest.RunResult:
    # The bad cell first: what it leaves behind is the next one's.
    (project.path / "two.toml").write_text('models = "llama"\ndevices = "cpu"\ndtypes = ["bfloat16", "float32"]\n')
    project.makepyfile(bad=BAD)
    project.syspathinsert()
    return project.runpytest(
        "--llm-matrix", "--llm-matrix-file=two.toml", f"--llm-target=bad:{target}", "--pyargs",
        "pytest_llmdevice.suite", *args,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("Raising", f"{CELL} did not load: Own: mine"),
        ("Mute", f"{CELL} did not load: Unprintable: (its text cannot be had: Own)"),
        ("Interrupting", f"{CELL} did not load: KeyboardInterrupt"),
    ],
)
def test_a_load_may_raise_what_is_no_exception(project: pytest.Pytester, target: str, line: str) -> None:
    result = run(project, target, "-k", "test_loads or test_meta")
    result.assert_outcomes(passed=2, errors=2, deselected=result.parseoutcomes()["deselected"])
    result.stdout.fnmatch_lines([line])


@pytest.mark.parametrize(
    ("target", "said"), [("RaisingLater", "Own: mine"), ("InterruptingLater", "KeyboardInterrupt")]
)
def test_a_generate_may_too(project: pytest.Pytester, target: str, said: str) -> None:
    result = run(project, target, "-k", "test_generation")
    result.assert_outcomes(passed=1, failed=1, deselected=result.parseoutcomes()["deselected"])
    result.stdout.fnmatch_lines([f"generation of {CELL}: generation: expected no exception, found {said}*"])


def test_what_callbacks_raise_is_nobodys(project: pytest.Pytester) -> None:
    result = run(project, "InCallbacks", "-k", "test_loads")
    assert result.parseoutcomes()["passed"] == 2


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    ("isolate", "interrupted"), [("none", "MAIN,"), ("cell", "MAIN, os.getpid()"), ("cell", "MAIN,")]
)
def test_a_user_interrupts_a_run(
    pytester: pytest.Pytester, run_process: RunProcess, isolate: str, interrupted: str
) -> None:
    pytester.makefile(".toml", m=MATRIX)
    pytester.makepyfile(
        test_own=f"""
        import os, signal, time
        import pytest
        MAIN = int(open("pid").read())

        @pytest.fixture
        def torn_down():
            yield
            open("torn", "w").close()

        def test_cell(llm_cell, torn_down):
            if llm_cell.model == "gpt2":
                os.path.exists("torn") and os.unlink("torn")
                for process in {{{interrupted}}}:
                    os.kill(process, signal.SIGINT)
                time.sleep(60)
        """,
        target="def load(checkpoint, cell): ...",
    )
    pytester.makeconftest("import os\n\ndef pytest_configure():\n    open('pid', 'w').write(str(os.getpid()))\n")
    pytester.makeini("[pytest]\npythonpath = .\n")
    flags = ("--llm-matrix", "--llm-matrix-file=m.toml", "--llm-target=target", f"--llm-isolate={isolate}", ".")
    result = run_process(*flags)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*KeyboardInterrupt*"])
    assert (pytester.path / "torn").exists()
    assert result.parseoutcomes()["passed"] == 3
