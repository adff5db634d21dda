"""What a run leaves in the folder of `--llm-results`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from answered_probe import PLUGIN, write_plugin

from pytest_llmdevice.errors import ResultsError
from pytest_llmdevice.hardware import Inventory
from pytest_llmdevice.results.records import Check
from pytest_llmdevice.results.run_header import Record
from pytest_llmdevice.results.store import RunFile, Writer, read

RunProcess = Callable[..., pytest.RunResult]

SUITE = ("--pyargs", "pytest_llmdevice.suite")


def run_file(project: pytest.Pytester) -> RunFile:
    (found,) = read(project.path / "results")
    return found


def checks(file: RunFile) -> dict[tuple[str, str], Check]:
    return {(each.cell, each.check): each for each in file.checks}


FLAGS = ("--llm-matrix", "--llm-matrix-file=two.toml", "--llm-results=results")


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "two workers"])
def test_each_check_and_cell_has_a_record(
    project: pytest.Pytester, run_process: RunProcess, workers: tuple[str, ...]
) -> None:
    if workers:
        pytest.importorskip("xdist")
    run = run_process if workers else project.runpytest
    run(*FLAGS, *workers, *SUITE, "-k", "loads or dtypes or generation or tied")
    file = run_file(project)
    assert set(file.planned) == set(file.cells) == {"llama.cpu.fp32.none.to", "llama.cpu.bf16.none.to"}
    assert len(file.checks) == 8
    found = checks(file)["llama.cpu.bf16.none.to", "dtypes"]
    assert (found.outcome, found.failure, found.findings, found.simulated) == ("passed", None, (), False)
    assert found.evidence
    assert found.seconds > 0
    cell = file.cells["llama.cpu.bf16.none.to"]
    assert cell.checks == {"passed": 4}
    assert cell.load_seconds
    assert cell.first_token_seconds
    assert cell.tokens_per_second
    assert cell.first_token_seconds < 10 > cell.load_seconds
    assert [len(tokens) for tokens in cell.tokens] == [8, 8, 8]
    assert {memory.place for memory in (*cell.load_memory, *cell.generate_memory)} == {"host"}
    assert cell.devices.startswith("cpu: ")
    assert file.end is not None
    assert file.end.exit_status == 0


def test_the_first_record_says_what_ran_where(project: pytest.Pytester) -> None:
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"], check=True
    )
    project.makepyfile(test_own="def test_it(llm_cell): pass")
    project.runpytest(*FLAGS, "--llm-target=pytest_llmdevice.loading.target:BuiltinTarget", "test_own.py")
    run = run_file(project).run
    assert run.command[0] == "pytest"
    assert "--llm-matrix" in run.command
    assert {"python", "torch", "transformers", "accelerate", "bitsandbytes"} <= set(run.versions)
    assert run.machine.cores > 0
    assert run.matrix.name == "two.toml"
    assert run.matrix.cells == 2
    assert run.target == "pytest_llmdevice.loading.target:BuiltinTarget"
    assert run.commit is not None
    assert len(run.commit.id) == 40
    assert not run.commit.dirty


TESTS = """
import pytest
from pytest_llmdevice.checks import Finding, Result

def test_passes(llm_cell): pass
def test_fails(llm_cell): Result("dtypes", (Finding("lm_head", "bfloat16", "float32"),)).require()
def test_asserts(llm_cell): assert llm_cell is None, "no cell"
def test_is_hollow(llm_cell): Result("tied").require()
def test_skips(llm_cell): pytest.skip("not today")
@pytest.fixture
def broken(): raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
def test_errs(llm_cell, broken): pass
@pytest.fixture
def untidy():
    yield
    raise RuntimeError("late")
def test_ends_badly(llm_cell, untidy): pass
@pytest.mark.xfail(reason="known")
def test_is_known(llm_cell): assert False
@pytest.mark.xfail(reason="stale", strict=True)
def test_is_stale(llm_cell): pass
def test_mixes(llm_cell):
    raise RuntimeError("Expected all tensors to be on the same device, but found at least two devices, cpu and cuda:0!")
def test_refuses(llm_cell): raise ValueError("8-bit is not supported for this model")
class TestOwn:
    @pytest.mark.parametrize("size", [1, 2])
    def test_size(self, llm_cell, size): pass
"""


@pytest.fixture
def own(project: pytest.Pytester) -> dict[str, Check]:
    project.makepyfile(test_own=TESTS)
    project.runpytest("--llm-matrix", "--llm-matrix-file=one.toml", "--llm-results=results", "test_own.py")
    return {check: record for (_, check), record in checks(run_file(project)).items()}


@pytest.mark.parametrize(
    ("name", "outcome", "failure", "message"),
    [
        ("passes", "passed", None, ""),
        ("fails", "failed", "dtype", "AssertionError: dtypes: lm_head: expected bfloat16, found float32"),
        ("asserts", "failed", "other", "AssertionError: no cell"),
        ("is_hollow", "hollow", None, "AssertionError: tied: hollow: there was nothing to check"),
        ("skips", "skipped", None, "not today"),
        ("errs", "error", "out-of-memory", "RuntimeError: CUDA out of memory. Tried to allocate 2 GiB"),
        ("ends_badly", "error", "other", "RuntimeError: late"),
        ("is_known", "xfail", None, "known"),
        ("is_stale", "xpass", None, "[XPASS(strict)] stale"),
        ("mixes", "failed", "placement", "RuntimeError: Expected all tensors to be on the same device, but found *"),
        ("refuses", "failed", "library-refusal", "ValueError: 8-bit is not supported for this model"),
    ],
)
def test_every_way_a_test_can_end_is_told_apart(
    own: dict[str, Check], name: str, outcome: str, failure: str | None, message: str
) -> None:
    found = own[f"test_own::test_{name}"]
    assert (found.outcome, found.failure) == (outcome, failure)
    assert found.message.startswith(message.removesuffix("*"))
    assert found.cause == ("by the test" if outcome == "skipped" else None)


def test_a_test_of_ones_own_is_known_by_module_class_and_parameters(own: dict[str, Check]) -> None:
    assert {name for name in own if "Own" in name} == {
        "test_own::TestOwn::test_size[1]",
        "test_own::TestOwn::test_size[2]",
    }


def test_the_findings_of_a_failure_are_in_its_record(own: dict[str, Check]) -> None:
    (found,) = own["test_own::test_fails"].findings
    assert (found.where, found.expected, found.actual) == ("lm_head", "bfloat16", "float32")


def test_a_cell_has_the_worst_outcome_of_its_checks(project: pytest.Pytester, own: dict[str, Check]) -> None:
    (cell,) = run_file(project).cells.values()
    assert cell.outcome == "error"
    assert sum(cell.checks.values()) == len(own)


def test_a_cell_that_did_not_load_is_an_error_of_the_loader(project: pytest.Pytester) -> None:
    project.makepyfile(broken="def load(checkpoint, cell): raise KeyError('no such layer')")
    project.makeini("[pytest]\npythonpath = .\n")
    project.runpytest(*FLAGS, "--llm-target=broken", *SUITE, "-k", "loads or dtypes")
    for record in checks(run_file(project)).values():
        assert (record.outcome, record.failure) == ("error", "loader")
        assert "no such layer" in record.message


def test_cells_that_do_not_run_are_planned_with_the_cause(project: pytest.Pytester, no_cards: object) -> None:
    project.makefile(".toml", card='models = "llama"\ndevices = ["cpu", "cuda:0"]\ndtypes = ["float32", "float16"]\n')
    project.makepyfile(test_own="def test_it(llm_cell): pass")
    flags = ("--llm-matrix", "--llm-matrix-file=card.toml", "--llm-results=results")
    project.runpytest(*flags, "--llm-cell=dtype=float32", "test_own.py")
    file = run_file(project)
    planned = {cell: (record.verdict, record.cause) for cell, record in file.planned.items()}
    assert planned == {
        "llama.cpu.fp32.none.to": ("run", None),
        "llama.cpu.fp16.none.to": ("skip", "not requested"),
        "llama.cuda0.fp32.none.to": ("skip", "absent"),
        "llama.cuda0.fp16.none.to": ("skip", "not requested"),
    }
    assert list(file.cells) == ["llama.cpu.fp32.none.to"]


def test_cells_that_no_test_was_chosen_for_are_said_to_be(project: pytest.Pytester) -> None:
    project.makepyfile(test_own="def test_it(llm_cell): pass")
    project.runpytest(*FLAGS, "test_own.py", "-k", "fp32")
    assert {cell: (done.outcome, done.cause) for cell, done in run_file(project).cells.items()} == {
        "llama.cpu.fp32.none.to": ("partial", None),
        "llama.cpu.bf16.none.to": ("skipped", "not requested"),
    }


def test_a_run_that_stops_early_has_aborted_cells(project: pytest.Pytester) -> None:
    project.makepyfile(test_own="def test_it(llm_cell): assert False\ndef test_more(llm_cell): pass")
    project.runpytest(*FLAGS, "test_own.py", "-x")
    file = run_file(project)
    assert {done.outcome for done in file.cells.values()} == {"aborted"}
    assert file.end is not None
    assert file.end.exit_status != 0


def test_a_worker_that_dies_leaves_an_aborted_check_and_the_others_whole(
    project: pytest.Pytester, run_process: RunProcess
) -> None:
    pytest.importorskip("xdist")
    project.makepyfile(
        test_own="""
        import os

        def test_first(llm_cell): pass
        def test_it(llm_cell):
            if llm_cell.dtype == "bfloat16":
                os._exit(3)
        def test_last(llm_cell): pass
        """
    )
    run_process(*FLAGS, "-n2", "test_own.py")
    found = {(record.cell, record.check.rpartition("_")[2]): record.outcome for record in run_file(project).checks}
    assert found == {
        ("llama.cpu.fp32.none.to", "first"): "passed",
        ("llama.cpu.fp32.none.to", "it"): "passed",
        ("llama.cpu.fp32.none.to", "last"): "passed",
        ("llama.cpu.bf16.none.to", "first"): "passed",
        ("llama.cpu.bf16.none.to", "it"): "aborted",
        ("llama.cpu.bf16.none.to", "last"): "aborted",
    }
    assert run_file(project).cells["llama.cpu.bf16.none.to"].outcome == "aborted"


def test_a_lost_device_aborts_what_would_run_on_it_and_nothing_else(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.makepyfile(
        test_own="""
        def test_it(llm_cell):
            if llm_cell.dtype == "float32":
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
        def test_more(llm_cell): pass
        """
    )
    project.runpytest(*FLAGS, "test_own.py")
    found = [(record.cell, record.outcome, record.failure) for record in run_file(project).checks]
    assert found == [
        ("llama.cpu.fp32.none.to", "failed", "device-lost"),
        ("llama.cpu.fp32.none.to", "aborted", "device-lost"),
        ("llama.cpu.bf16.none.to", "aborted", "device-lost"),
        ("llama.cpu.bf16.none.to", "aborted", "device-lost"),
    ]


def test_a_cell_that_hangs_has_a_time_out(project: pytest.Pytester) -> None:
    project.makepyfile(test_own="import time\ndef test_it(llm_cell): time.sleep(60)\ndef test_more(llm_cell): pass")
    project.runpytest(
        "--llm-matrix", "--llm-matrix-file=one.toml", "--llm-results=results", "--llm-cell-timeout=0.3", "test_own.py"
    )
    assert [(record.outcome, record.failure) for record in run_file(project).checks] == [
        ("failed", "time-out"),
        ("aborted", "time-out"),
    ]


def test_no_secret_is_written(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    monkeypatch.setenv("MY_PASSWORD", "correct-horse")
    error = "RuntimeError('401 for hf_abcdefghijklmnop, correct-horse')"
    project.makepyfile(test_own=f"def test_it(llm_cell): raise {error}")
    project.runpytest(*FLAGS, "--llm-report=html:page.html", "--llm-report=json:page.json", "test_own.py", "-k", "it")
    for path in ((project.path / "results").iterdir(), project.path.glob("page.*")):
        for file in path:
            text = file.read_text()
            assert "401 for ***, ***" in text
            assert "hf_abc" not in text
            assert "correct-horse" not in text


def test_a_target_that_a_fixture_gives_is_named_by_its_class(project: pytest.Pytester) -> None:
    project.makeconftest(
        """
        import pytest
        from pytest_llmdevice import BuiltinTarget

        class Mine(BuiltinTarget): pass

        @pytest.fixture(scope="session")
        def llm_target(): return Mine()
        """
    )
    project.makepyfile(test_own="def test_it(llm_model): pass")
    project.runpytest(*FLAGS, "test_own.py")
    file = run_file(project)
    assert {record.target for record in (*file.checks, *file.cells.values())} == {"conftest:Mine"}


def test_the_folder_cannot_be_a_file(project: pytest.Pytester) -> None:
    (project.path / "results").write_text("mine")
    project.makepyfile(test_own="def test_it(llm_cell): pass")
    result = project.runpytest(*FLAGS, "test_own.py")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*results: results cannot be written there: *"])
    assert (project.path / "results").read_text() == "mine"


def test_a_disk_that_is_full_ends_the_records_and_not_the_run(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.makepyfile(test_own="def test_it(llm_cell): pass")
    written = Writer.write

    def full(self: Writer, *records: Record) -> None:
        if any(isinstance(record, Check) for record in records):
            raise ResultsError("the disk is full")
        written(self, *records)

    monkeypatch.setattr(Writer, "write", full)
    result = project.runpytest(*FLAGS, "test_own.py")
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["2 cells: 2 partly run", "the disk is full"])
    assert run_file(project).end is None


def test_a_shard_is_recorded_as_it_is_spelled(project: pytest.Pytester) -> None:
    project.makepyfile(test_own="def test_it(llm_cell): pass")
    project.runpytest(*FLAGS, "--llm-shard= 01 / 2 ", "test_own.py")
    assert run_file(project).run.shard == "1/2"


def killed_after(project: pytest.Pytester, inventory: Inventory, count: int) -> Iterator[Path]:
    """Runs pytest until `count` lines are written, kills it, and gives the file."""
    write_plugin(project.path, inventory)
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", PLUGIN, *FLAGS, "-p", "no:cacheprovider", "test_own.py"],
        stdout=subprocess.DEVNULL,
        env={**os.environ},
    ) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            files = list((project.path / "results").glob("*.jsonl"))
            if files and files[0].read_bytes().count(b"\n") >= count:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    yield from (project.path / "results").glob("*.jsonl")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_a_run_that_is_killed_keeps_what_was_finished(project: pytest.Pytester, inventory: Inventory) -> None:
    project.makepyfile(
        test_own="""
        import time, pytest

        @pytest.mark.parametrize("number", range(200))
        def test_it(llm_cell, number): time.sleep(0.02)
        """
    )
    (path,) = killed_after(project, inventory, 20)
    lines = path.read_bytes().split(b"\n")
    complete = [json.loads(line) for line in lines[:-1]]
    assert len(complete) >= 20
    (file,) = read(path)
    assert file.end is None
    assert len(file.checks) == sum(line["type"] == "check" for line in complete)
