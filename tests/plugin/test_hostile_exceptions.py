"""Exceptions whose text no file, no terminal and no other process can take: recorded, and the run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hostile import obeyed

RAISED = """
import os

class Silent(Exception):
    def __str__(self):
        raise ZeroDivisionError

class Wrong(Exception):
    def __str__(self):
        return None
    def __repr__(self):
        raise ZeroDivisionError

RAISED = {
    "to": FileNotFoundError(2, "no file", os.fsdecode(b"/models/\\xff\\xfe.bin")),
    "device-map": ValueError("half \\ud800 a character"),
    "auto": ValueError("\\x1b[2J\\r\\n::error::taken\\n##[group]x\\x00\\x9b31m\\u202e"),
    "balanced": Silent(),
    "sequential": Wrong(),
    "disk-offload": type("Named\\x1b[2J", (Exception,), {})("x"),
}
"""

TARGET = """
from raised import RAISED

def load(checkpoint, cell):
    if cell.dtype == "bfloat16":
        from transformers import AutoModelForCausalLM
        return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype).eval()
    raise RAISED[cell.strategy]
"""

OWN = """
import pytest
from raised import RAISED

class Text(str):
    pass

def test_own(llm_cell, record_property):
    record_property("key", Text("half \\ud800 a character"))
    print("printed \\udcff \\ud800")
    if llm_cell.dtype == "float32":
        raise RAISED[llm_cell.strategy]
    pytest.skip("because of \\udcff and \\x1b[2J")
"""

STRATEGIES = ("to", "device-map", "auto", "balanced", "sequential", "disk-offload")
MATRIX = f"""
models = "llama"
devices = "cpu"
dtypes = "float32"
strategies = {list(STRATEGIES)}

[[include]]
dtypes = "bfloat16"
strategies = "to"
"""
PASSING = "llama.cpu.bf16.none.to"


def records(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("*.jsonl")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def held(project: pytest.Pytester, result: pytest.RunResult) -> list[dict[str, Any]]:
    """The records of a run, which came to its end, showed nothing that is obeyed, and wrote its XML."""
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    assert not obeyed(result.stdout.str())
    ET.parse(project.path / "junit.xml")
    found = records(project.path / "results")
    assert found[-1]["type"] == "end"
    assert [record["cell"] for record in found if record["type"] == "cell"]
    for record in found:
        assert "\\ud" not in json.dumps(record).replace("\\\\ud", "")
    return found


def run(project: pytest.Pytester, run_process: Callable[..., pytest.RunResult], *arguments: str) -> dict[str, str]:
    """What became of each cell in a run with `arguments`."""
    project.makefile(".toml", hostile=MATRIX)
    project.makepyfile(raised=RAISED, hostile_target=TARGET, test_own=OWN)
    common = ("--llm-matrix", "--llm-matrix-file=hostile.toml", "--llm-results=results", "--junitxml=junit.xml")
    result = run_process(*common, *arguments)
    return {record["cell"]: record["outcome"] for record in held(project, result) if record["type"] == "check"}


WORKERS = pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "two workers"])


@WORKERS
def test_what_a_target_raises_is_recorded_and_the_run_goes_on(
    project: pytest.Pytester, run_process: Callable[..., pytest.RunResult], workers: tuple[str, ...]
) -> None:
    suite = ("--pyargs", "pytest_llmdevice.suite", "-k", "loads", "--llm-target=hostile_target")
    outcomes = run(project, run_process, *suite, *workers)
    assert outcomes.pop(PASSING) == "passed"
    assert len(outcomes) == len(STRATEGIES)
    assert set(outcomes.values()) <= {"failed", "error"}


@WORKERS
def test_what_a_test_of_ones_own_raises_is_recorded_and_the_run_goes_on(
    project: pytest.Pytester, run_process: Callable[..., pytest.RunResult], workers: tuple[str, ...]
) -> None:
    outcomes = run(project, run_process, "test_own.py", "-rA", *workers)
    assert outcomes.pop(PASSING) == "skipped"
    assert len(outcomes) == len(STRATEGIES)
    assert set(outcomes.values()) == {"failed"}
