"""`--llm-isolate`: a cell whose process dies, in whatever way, fails alone and says how, where and what it printed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from pytest_llmdevice.results.store import RunFile, read

RunProcess = Callable[..., pytest.RunResult]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="cannot fork")

MATRIX = """
models = ["llama", "gpt2", "qwen2", "qwen3", "gemma3", "mixtral"]
devices = "cpu"
dtypes = ["float32", "bfloat16", "float16"]
"""

SHORT = """
from pytest_llmdevice.plugin import isolated_cells, timeout_plugin, watchdog
timeout_plugin.GRACE_SECONDS = 1.0
watchdog._MARGIN = 1.0
isolated_cells.MARGIN_SECONDS = 2.0
"""

DYING = """
import ctypes, os, signal, sys, threading, time
import pytest

C = ctypes.CDLL(None)

def thread_exits():
    threading.Thread(target=os._exit, args=(5,)).start()
    time.sleep(60)

def leaves_a_process_behind():
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    os._exit(4)

def kills(number):
    os.kill(os.getpid(), number)
    time.sleep(60)

def passes_after_a_thread_exits():
    thread = threading.Thread(target=sys.exit, args=(6,))
    thread.start()
    thread.join()

WAYS = {
    "llama.cpu.fp32": lambda: ctypes.string_at(0),
    "llama.cpu.bf16": os.abort,
    "llama.cpu.fp16": lambda: C._exit(0),
    "gpt2.cpu.fp32": lambda: os._exit(3),
    "gpt2.cpu.bf16": lambda: kills(signal.SIGKILL),
    "gpt2.cpu.fp16": lambda: kills(signal.SIGTERM),
    "qwen2.cpu.fp32": lambda: C.exit(0),
    "qwen2.cpu.bf16": lambda: C.execv(b"/bin/sh", (ctypes.c_char_p * 4)(b"sh", b"-c", b"exit 8", None)),
    "qwen2.cpu.fp16": lambda: os.closerange(3, 4096),
    "qwen3.cpu.fp32": thread_exits,
    "qwen3.cpu.bf16": leaves_a_process_behind,
    "qwen3.cpu.fp16": lambda: ctypes.PyDLL(None).sleep(60),
    "gemma3.cpu.fp32": lambda: kills(signal.SIGSTOP),
    "gemma3.cpu.bf16": passes_after_a_thread_exits,
    "gemma3.cpu.fp16": lambda: sys.exit(7),
}

@pytest.fixture(scope="session")
def once(llm_cell):
    with open("once.log", "a") as log:
        log.write(f"{llm_cell}\\n")

def test_first(llm_cell, once):
    print(f"first of {llm_cell}")

def test_dies(llm_cell, once):
    print(f"printed in {llm_cell}")
    os.write(2, f"written in {llm_cell}\\n".encode())
    WAYS.get(llm_cell.id.removesuffix(".none.to"), lambda: None)()

def test_last(llm_cell, once):
    pass

def test_plain():
    assert os.getpid() == int(open("pid").read())
"""

ENDINGS = {
    "llama.cpu.fp32": "was ended by signal 11 (SIGSEGV)",
    "llama.cpu.bf16": "was ended by signal 6 (SIGABRT)",
    "llama.cpu.fp16": "ended with exit code 0",
    "gpt2.cpu.fp32": "ended with exit code 3",
    "gpt2.cpu.bf16": "was ended by signal 9 (SIGKILL)",
    "gpt2.cpu.fp16": "was ended by signal 15 (SIGTERM)",
    "qwen2.cpu.fp32": "ended with exit code 1",
    "qwen2.cpu.bf16": "ended with exit code 8",
    "qwen2.cpu.fp16": "ended with exit code 70",
    "qwen3.cpu.fp32": "ended with exit code 5",
    "qwen3.cpu.bf16": "ended with exit code 4",
    "qwen3.cpu.fp16": "ended with exit code 1",
    "gemma3.cpu.fp32": "was killed: it had outlived its time limit",
}

DIES = "test_dying::test_dies"
LAST = "test_dying::test_last"


@pytest.fixture
def dying(pytester: pytest.Pytester) -> pytest.Pytester:
    """Tests that end their process in as many ways as there are cells."""
    pytester.makefile(".toml", m=MATRIX)
    pytester.makepyfile(test_dying=DYING, short=SHORT, target="def load(checkpoint, cell): ...")
    pytester.makeconftest("import os\n\ndef pytest_sessionstart():\n    open('pid', 'w').write(str(os.getpid()))\n")
    pytester.makeini("[pytest]\npythonpath = .\n")
    return pytester


FLAGS = (
    "-p", "short", "--llm-matrix", "--llm-matrix-file=m.toml", "--llm-target=target", "--llm-cell-timeout=4",
    "--llm-results=results",
)  # fmt: skip


def outcomes(file: RunFile) -> dict[str, dict[str, str]]:
    """The outcome of each check of each cell."""
    found: dict[str, dict[str, str]] = {}
    for check in file.checks:
        cell = found.setdefault(check.cell.removesuffix(".none.to"), {})
        assert check.check not in cell, "twice"
        cell[check.check] = check.outcome
    return found


@pytest.mark.parametrize("options", [["--capture=fd"], ["--capture=sys", "-n2"]], ids=["serial", "two workers"])
def test_however_a_process_dies_its_cell_alone_fails_and_says_how(
    dying: pytest.Pytester, run_process: RunProcess, options: list[str]
) -> None:
    workers = "-n2" in options
    selection = ["--deselect", "test_dying.py::test_plain"] if workers else []
    reports = ("--junitxml=junit.xml", "--durations=3")
    result = run_process(*FLAGS, "--llm-isolate=cell", *reports, *options, *selection, ".")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    (file,) = read(dying.path / "results")
    assert file.end is not None
    found = outcomes(file)
    assert len(found) == 18
    for cell, checks in found.items():
        if cell in ENDINGS:
            assert checks == {"test_dying::test_first": "passed", DIES: "aborted", LAST: "aborted"}, cell
        else:
            failed = "failed" if cell == "gemma3.cpu.fp16" else "passed"
            assert checks == {"test_dying::test_first": "passed", DIES: failed, LAST: "passed"}, cell
    messages = {(check.cell.removesuffix(".none.to"), check.check): check.message for check in file.checks}
    classes = {check.cell.removesuffix(".none.to"): check.failure for check in file.checks if check.check == DIES}
    for cell, ending in ENDINGS.items():
        name = f"test_dies[{cell}.none.to]"
        assert messages[cell, DIES].startswith(f"{cell}.none.to: its process {ending}"), messages[cell, DIES]
        assert messages[cell, DIES].endswith(f", in {name}")
        assert messages[cell, LAST] == f"{cell}.none.to: not run: the process of this cell died in {name}"
        hangs = cell in {"qwen3.cpu.fp16", "gemma3.cpu.fp32"}
        assert classes[cell] == ("time-out" if hangs else "other"), cell
    plain = 0 if workers else 1
    result.assert_outcomes(passed=18 + 4 + 5 + plain, failed=len(ENDINGS) + 1, errors=len(ENDINGS))
    assert Counter((dying.path / "once.log").read_text().split()) == {f"{cell}.none.to": 1 for cell in found}
    # What it printed, at both levels, and where it was.
    text = result.stdout.str()
    for cell in set(ENDINGS) - {"gemma3.cpu.fp32"}:
        assert f"printed in {cell}.none.to\n" in text
        assert workers or f"written in {cell}.none.to\n" in text
    result.stdout.fnmatch_lines(
        ["Fatal Python error: Segmentation fault", '  File "*test_dying.py", line * in test_dies']
    )
    result.stdout.fnmatch_lines(["*slowest 3 durations*"])
    suites = ET.parse(dying.path / "junit.xml").getroot()  # our own file
    assert len(suites.findall(".//testcase")) == 18 * 3 + plain


def test_a_device_has_one_process_and_a_crash_in_one_cell_leaves_the_others(
    dying: pytest.Pytester, run_process: RunProcess
) -> None:
    dying.makepyfile(
        test_dying="""
        import os

        def test_pid(llm_cell):
            with open("pids.log", "a") as log:
                log.write(f"{llm_cell} {os.getpid()}\\n")
            if llm_cell.id == "gpt2.cpu.fp32.none.to":
                os._exit(0)

        def test_after(llm_cell): pass
        """
    )
    result = run_process(*FLAGS, "--llm-isolate=device", ".")
    result.assert_outcomes(passed=34, failed=1, errors=1)
    lines = [line.split() for line in (dying.path / "pids.log").read_text().splitlines()]
    assert len(lines) == 18
    assert list(Counter(pid for _, pid in lines).values()) == [4, 14]


def test_a_device_that_is_lost_is_lost_for_the_cells_of_its_process(
    dying: pytest.Pytester, run_process: RunProcess
) -> None:
    dying.makepyfile(
        test_dying="""
        import torch

        def test_loses(llm_cell):
            if llm_cell.id == "gpt2.cpu.fp32.none.to":
                raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

        def test_after(llm_cell): pass
        """
    )
    flags = (*FLAGS, "--llm-cell=model=llama|gpt2", "test_dying.py")
    run_process(*flags, "--llm-isolate=cell").assert_outcomes(passed=10, failed=1, errors=1)
    run_process(*flags, "--llm-isolate=none").assert_outcomes(passed=6, failed=1, errors=5)


OWN = """
import os, warnings
import pytest

@pytest.fixture(scope="session")
def session_wide():
    log(f"session set up")
    yield
    log(f"session torn down")

@pytest.fixture(scope="module")
def module_wide():
    log("module set up")
    yield
    log("module torn down")

def log(text):
    with open("own.log", "a") as file:
        file.write(f"{text} {'here' if os.getpid() == int(open('pid').read()) else 'there'}\\n")

def test_before(session_wide, module_wide): pass

def test_cell(llm_cell, session_wide, module_wide, tmp_path, record_property, subtests):
    record_property("odd", object)
    warnings.warn("of a cell")
    for part in range(2):
        with subtests.test(part=part):
            pass
    assert llm_cell.dtype != "bfloat16"

def test_again(llm_cell, session_wide, module_wide): log("again")

def test_after(session_wide, module_wide): pass
"""


def test_fixtures_warnings_subtests_and_properties_of_a_projects_own_tests(
    dying: pytest.Pytester, run_process: RunProcess
) -> None:
    dying.makepyfile(test_dying=OWN)
    isolated = run_process(*FLAGS, "--llm-isolate=cell", "--llm-cell=model=llama|gpt2", ".")
    log = Counter((dying.path / "own.log").read_text().splitlines())
    plain = run_process(*FLAGS, "--llm-cell=model=llama|gpt2", ".")
    assert isolated.parseoutcomes() == plain.parseoutcomes()
    assert isolated.parseoutcomes()["failed"] == 2
    # What was set up here is known there, and is torn down here alone.
    assert log["session torn down there"] == log["session set up there"]
    assert log["module torn down there"] == log["module set up there"]
    assert log["session torn down here"] == log["session set up here"] == 1
    assert log["again there"] == 6
    isolated.stdout.fnmatch_lines(["*UserWarning: of a cell"])


@pytest.mark.parametrize("flag", ["-x", "--maxfail=2"])
def test_a_run_may_end_early(dying: pytest.Pytester, run_process: RunProcess, flag: str) -> None:
    dying.makepyfile(test_dying=OWN)
    result = run_process(*FLAGS, "--llm-isolate=cell", flag, "test_dying.py")
    assert result.parseoutcomes()["failed"] == (1 if flag == "-x" else 2)
    log = Counter((dying.path / "own.log").read_text().splitlines())
    assert log["session torn down there"] == log["session set up there"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--llm-isolate=row"], "ERROR: --llm-isolate 'row': known are cell, device, none"),
        (["--llm-isolate=cell", "--pdb"], "ERROR: --llm-isolate cell: --pdb needs the process of the terminal; *"),
        (["--llm-isolate=device", "--trace"], "ERROR: --llm-isolate device: --trace needs the process of the *"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(project: pytest.Pytester, flags: list[str], said: str) -> None:
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=one.toml", *flags)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])


def test_without_fork_it_is_refused(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.fork")
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=one.toml", "--llm-isolate=cell")
    result.stderr.fnmatch_lines(["ERROR: --llm-isolate cell: this system cannot fork a process; use pytest -n 1"])


def test_a_simulated_and_a_real_cell_say_the_same_as_without_it(
    pytester: pytest.Pytester, run_process: RunProcess
) -> None:
    pytester.makefile(
        ".toml", m='models = "llama"\ndevices = ["cpu", "cuda:0"]\ndtypes = "float32"\nstrategies = "to"\n'
    )
    flags = (
        "--llm-matrix", "--llm-matrix-file=m.toml", "--llm-simulate=cuda:1", "--llm-cell=device=cpu|cuda:0", "--pyargs",
        "pytest_llmdevice.suite", "-k", "test_loads or test_placement or test_generation",
    )  # fmt: skip
    files = []
    for isolate in ("none", "cell"):
        assert run_process(*flags, f"--llm-isolate={isolate}", f"--llm-results={isolate}").ret == 0
        files += read(Path(pytester.path / isolate))
    first, second = files
    assert outcomes(first) == outcomes(second)
    assert len(first.checks) == len(second.checks) == 6
    assert [check.evidence for check in first.checks] == [check.evidence for check in second.checks]
    assert {cell.cell: cell.tokens for cell in first.cells.values()} == {
        cell.cell: cell.tokens for cell in second.cells.values()
    }
    assert all(cell.load_seconds for cell in second.cells.values())
