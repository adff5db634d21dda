"""Code under test that ends the process of pytest, or returns into it from a fork, never leaves a green run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from pytest_llmdevice.results.store import read

RunProcess = Callable[..., pytest.RunResult]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="cannot fork")

CELL = "llama.cpu.bf16.none.to"

ENDING = """
import ctypes, multiprocessing, os, sys
import pytest

WAYS = {
    "exit0": lambda: os._exit(0),
    "exit256": lambda: os._exit(256),
    "exit7": lambda: os._exit(7),
    "execv": lambda: os.execv(sys.executable, [sys.executable, "-c", "pass"]),
    "execlp": lambda: os.execlp("true", "true"),
    "execve": lambda: os.execve(sys.executable, [sys.executable, "-c", "pass"], {}),
    "libc": lambda: ctypes.CDLL(None).exit(0),
    "pydll": lambda: ctypes.PyDLL(None).exit(0),
}

@pytest.fixture
def loaded(llm_cell):
    if llm_cell.dtype == "bfloat16":
        WAYS[os.environ["WAY"]]()

def test_first(llm_cell): pass
def test_cell(loaded): pass
"""


@pytest.fixture
def ending(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makefile(".toml", two='models = "llama"\ndevices = "cpu"\ndtypes = ["bfloat16", "float32"]\n')
    pytester.makepyfile(test_ending=ENDING, target="def load(checkpoint, cell): ...")
    pytester.makeini("[pytest]\npythonpath = .\n")
    return pytester


FLAGS = ("--llm-matrix", "--llm-matrix-file=two.toml", "--llm-target=target", "--llm-results=results")
GLIBC = sys.platform == "linux"


@pytest.mark.parametrize(
    ("way", "code", "said"),
    [
        ("exit0", 1, "it called os._exit(0)"),
        ("exit256", 1, "it called os._exit(256)"),
        ("exit7", 7, "it called os._exit(7)"),
        ("execv", 1, "it called os.execv('*')"),
        ("execlp", 1, "it called os.execv*('*true')"),
        ("execve", 1, "it called os.execve('*')"),
        pytest.param("libc", 1, "exit was called in C", marks=pytest.mark.skipif(not GLIBC, reason="needs glibc")),
        pytest.param("pydll", 1, "exit was called in C", marks=pytest.mark.skipif(not GLIBC, reason="needs glibc")),
    ],
)
def test_whoever_ends_the_process_is_named_and_the_run_is_red(
    ending: pytest.Pytester, run_process: RunProcess, monkeypatch: pytest.MonkeyPatch, way: str, code: int, said: str
) -> None:
    monkeypatch.setenv("WAY", way)
    result = run_process(*FLAGS, ".")
    assert result.ret == code
    result.stderr.fnmatch_lines(
        [
            f"{CELL}: test_cell?{CELL}? ended the process of pytest: {said}",
            "Stack (most recent call first):",
            '  File "*test_ending.py", line * in loaded',
        ]
    )
    # And the next run says so once more, where the line above was not kept.
    if way == "exit7":
        ends = f"llm matrix: a run before this one ended while it was in {CELL}, test_cell?{CELL}? (*, process *)"
        monkeypatch.setenv("WAY", "none")
        run_process(*FLAGS, "--llm-cell=dtype=float32", ".").stdout.fnmatch_lines([ends])
        assert "a run before this one" not in run_process(*FLAGS, "--llm-cell=dtype=float32", ".").stdout.str()


FORKING = """
import multiprocessing, os, sys, time
import pytest

def own_end(code):
    number = os.fork()
    if number == 0:
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == code

def by_multiprocessing():
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(0,))
    process.start()
    process.join()
    assert process.exitcode == 0

def returns():
    number = os.fork()
    if number:
        assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == 1

def raises(error):
    number = os.fork()
    if number == 0:
        raise error
    assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == 1

def replaced():
    number = os.fork()
    if number == 0:
        os.execv(sys.executable, [sys.executable, "-c", "raise SystemExit(5)"])
    assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == 5

WAYS = {
    "llama.cpu.fp32": returns,
    "llama.cpu.bf16": lambda: raises(ValueError("in the child")),
    "gpt2.cpu.fp32": lambda: raises(SystemExit(0)),
    "gpt2.cpu.bf16": lambda: own_end(0),
    "qwen2.cpu.fp32": by_multiprocessing,
    "qwen2.cpu.bf16": replaced,
}

def way(cell):
    return WAYS[cell.id.removesuffix(".none.to")]

@pytest.fixture(scope="session")
def made(llm_cell):
    way(llm_cell)()

def test_fixture(made, llm_cell): print("once")
def test_call(llm_cell): way(llm_cell)()

@pytest.fixture
def torn_down(llm_cell):
    yield
    way(llm_cell)()

def test_teardown(torn_down): pass
"""


@pytest.mark.parametrize("options", [[], ["-n1"], ["--llm-isolate=cell"]], ids=["serial", "a worker", "isolated"])
def test_a_forked_process_may_end_and_never_goes_on_as_pytest(
    ending: pytest.Pytester, run_process: RunProcess, options: list[str]
) -> None:
    matrix = 'models = ["llama", "gpt2", "qwen2"]\ndevices = "cpu"\ndtypes = ["bfloat16", "float32"]\n'
    ending.makefile(".toml", two=matrix)
    ending.makepyfile(test_ending=FORKING)
    result = run_process(*FLAGS, *options, ".")
    result.assert_outcomes(passed=18)
    assert result.ret == pytest.ExitCode.OK
    (file,) = read(ending.path / "results")
    assert len(file.checks) == 18
    assert file.end is not None
    if not options:
        ended = "a process that was forked there returned into pytest, and is ended; a forked process must end with *"
        result.stderr.fnmatch_lines([f"llama.cpu.fp32.none.to: test_fixture*: {ended}"])
        assert result.stderr.str().count("returned into pytest") == 9


def test_what_was_left_where_everything_was_killed_is_said_by_the_next_run(
    ending: pytest.Pytester, run_process: RunProcess
) -> None:
    ending.makepyfile(
        test_ending="""
        import os, signal

        def test_cell(llm_cell):
            if llm_cell.dtype == "float32" and os.path.exists("kill"):
                os.unlink("kill")
                os.kill(int(open("pid").read()), signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    ending.makeconftest(
        "import os\n\ndef pytest_configure(config):\n"
        "    if not hasattr(config, 'workerinput'):\n        open('pid', 'w').write(str(os.getpid()))\n"
    )
    said = "llm matrix: a run before this one ended while it was in llama.cpu.fp32.none.to, test_cell?llama.cpu.fp32*"
    quiet = "a run before this one"
    for options in ([], ["-n1"], ["--llm-isolate=cell"]):
        (ending.path / "kill").touch()
        assert run_process(*FLAGS, *options, ".").ret != 0
        result = run_process(*FLAGS, ".")
        result.stdout.fnmatch_lines([said])
        result.assert_outcomes(passed=2)
    assert quiet not in run_process(*FLAGS, ".").stdout.str()
    assert not list((ending.path / ".pytest_cache").glob("**/running-*"))
    # Without a cache nothing is kept, and nothing is wrong.
    run_process(*FLAGS, "-p", "no:cacheprovider", ".").assert_outcomes(passed=2)


def test_the_file_of_a_run_that_is_under_way_is_left_alone(ending: pytest.Pytester, run_process: RunProcess) -> None:
    ending.makepyfile(test_ending="def test_cell(llm_cell): pass")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        folder = ending.path / ".pytest_cache" / "d" / "llmdevice"
        folder.mkdir(parents=True)
        data = {"run": "other", "pid": other.pid, "cell": "some.cell", "test": "test_it", "time": "now"}
        (folder / "running-other-main.json").write_text(json.dumps(data))
        (folder / "running-bad-main.json").write_text("{")
        result = run_process(*FLAGS, ".")
        assert "some.cell" not in result.stdout.str()
        assert [path.name for path in folder.iterdir()] == ["running-other-main.json"]
        other.communicate(b"\n")
    run_process(*FLAGS, ".").stdout.fnmatch_lines(["*ended while it was in some.cell, test_it (now, process *)"])
