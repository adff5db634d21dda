"""A disk that is full: one sentence, the exit code of an error, and nothing that could be taken for a result."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from results.builder import CPU_FP32, ResultsBuilder

from cli.calling import call

FULL = Path("/dev/full")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for number in range(3):
        ResultsBuilder({CPU_FP32: {"loads": "passed"}}, name=f"20261125T10000{number}Z-aaaaaa").write(
            tmp_path / "results"
        )
    return tmp_path / "results"


def fill(monkeypatch: pytest.MonkeyPatch, after: int = 0) -> None:
    """Have no more than `after` new files find room."""
    opened, left = os.fdopen, [after]

    def full(descriptor: int, *arguments: Any, **options: Any) -> Any:
        file = opened(descriptor, *arguments, **options)
        left[0] -= 1
        if left[0] < 0:
            file.close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return file

    monkeypatch.setattr(os, "fdopen", full)


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [("show",), ("show", "--json"), ("report",), ("gate",)], ids=" ".join)
def test_an_output_that_takes_nothing_is_an_error(results: Path, arguments: tuple[str, ...]) -> None:
    with FULL.open("w") as file:
        command = [sys.executable, "-m", "pytest_llmdevice.cli", *arguments, str(results)]
        ended = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == "Error: the output: cannot be read or written: No space left on device\n"


@pytest.mark.parametrize("name", ["report.md", "report.html", "report.json"])
def test_a_report_is_written_whole_or_not_at_all(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).write_text("old")
    fill(monkeypatch)
    called = call("report", str(results), "-o", str(tmp_path / name))
    assert called.code == 2
    assert called.err.count("\n") == 1
    assert "No space left on device; nothing was changed" in called.err
    assert (tmp_path / name).read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "results"]


def test_a_part_of_merged_runs_is_not_left_behind(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(monkeypatch, after=2)
    called = call("merge", str(results), "-o", str(tmp_path / "merged"))
    assert called.code == 2
    assert "No space left on device" in called.err
    assert list((tmp_path / "merged").iterdir()) == []


def test_a_baseline_is_written_whole_or_not_at_all(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(monkeypatch)
    called = call("gate", str(results), "--baseline", str(tmp_path / "base.jsonl"), "--update", "--force", "ci")
    assert called.code == 2
    assert not (tmp_path / "base.jsonl").exists()
