"""A run that is killed at any moment loses at most the record that it was writing."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from pytest_llmdevice.cli.command import command
from pytest_llmdevice.errors import ResultsError
from pytest_llmdevice.results.store import read_file

TESTS = Path(__file__).parents[1]

WRITER = """
import sys
from itertools import count
from pathlib import Path

sys.path.insert(0, sys.argv[2])
from results.builder import CPU_FP32, PLAIN, ResultsBuilder, check
from pytest_llmdevice.results.store import Writer

first, planned, *_ = ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}).records()
with Writer(Path(sys.argv[1]), first, PLAIN) as writer:
    writer.write(planned)
    for number in count():
        writer.write(check(CPU_FP32, f"check-{number}", message="x" * (number % 3000)))
        # What is told is written.
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize("seed", range(5))
def test_the_reader_has_every_record_that_was_written_before_the_kill(tmp_path: Path, seed: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "results"), str(TESTS)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "0\n"
        # Records are being written all the while: the moment is anywhere in one.
        time.sleep(random.Random(seed).uniform(0, 0.05))
        writer.kill()
        told = 1 + len(writer.stdout.read().splitlines())
    (path,) = (tmp_path / "results").iterdir()
    file = read_file(path)
    assert [each.check for each in file.checks] == [f"check-{number}" for number in range(len(file.checks))]
    # One more may have been written and not been told.
    assert told <= len(file.checks) <= told + 1
    assert file.end is None


def test_a_file_cut_at_any_byte_is_read_up_to_its_last_whole_record(tmp_path: Path) -> None:
    from results.builder import CPU_FP32, ResultsBuilder

    whole = ResultsBuilder({CPU_FP32: {"dtypes": "passed", "tied": "failed"}}).write(tmp_path / "whole").read_bytes()
    path = tmp_path / "cut.jsonl"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        lines = whole[:length].count(b"\n")
        if lines < 2:
            # Nothing is known of what it was to run: no evidence, and not to be passed over.
            with pytest.raises(ResultsError, match=r"cut\.jsonl:1: .*killed"):
                read_file(path)
            continue
        file = read_file(path)
        assert 1 + len(file.planned) + len(file.checks) + len(file.cells) + bool(file.end) == lines


def test_merge_and_gate_read_the_rest(tmp_path: Path) -> None:
    from results.builder import CPU_BF16, CPU_FP32, ResultsBuilder

    run = ResultsBuilder({CPU_FP32: {"dtypes": "passed"}, CPU_BF16: {"dtypes": "passed"}})
    path = run.write(tmp_path / "results")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]) + lines[-2][:30])
    merged = CliRunner().invoke(command, ["merge", str(tmp_path / "results"), "-o", str(tmp_path / "all")])
    assert merged.exit_code == 0
    assert "2 cells: 1 aborted, 1 passed" in merged.output
    assert "the last record was cut off when the run was killed; it is left out" in merged.output
    gated = CliRunner().invoke(command, ["gate", str(tmp_path / "all")])
    assert gated.exit_code == 1
    assert gated.output.startswith("gate failed: 1 cell of 2: 1 aborted\n")
