"""A cell is loaded once and the hardware probed once, whatever the number of tests, modules and workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from xdist.remote import Producer

from pytest_llmdevice.plugin.xdist_plugin import CellScheduling, Distribution

RunProcess = Callable[..., pytest.RunResult]

TARGET = """
import os
from pathlib import Path
from pytest_llmdevice import BuiltinTarget

LOG = Path(os.environ["LOAD_LOG"])

class Counting(BuiltinTarget):
    def load(self, checkpoint, cell):
        with LOG.open("a") as log:
            log.write(f"load {cell} {os.getpid()}\\n")
        return super().load(checkpoint, cell)
"""

CONFTEST = """
import os
import pytest_llmdevice.plugin.session as run
from pathlib import Path

start = run.start

def logged(timeout):
    with Path(os.environ["LOAD_LOG"]).open("a") as log:
        log.write("probe\\n")
    return start(timeout)

run.start = logged
"""

MATRIX = """
models = ["llama", "gpt2"]
devices = ["cpu", "cuda:0"]
dtypes = ["float32", "bfloat16"]
"""

TESTS = "def test_one(llm_model): pass\ndef test_two(llm_model): pass\ndef test_three(llm_cell, llm_inputs): pass\n"


@pytest.fixture
def log(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = pytester.path / "loads.log"
    path.touch()
    monkeypatch.setenv("LOAD_LOG", str(path))
    pytester.makefile(".toml", four=MATRIX)
    pytester.makepyfile(counting=TARGET, test_first=TESTS, test_second=TESTS)
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\npythonpath = .\n")
    return path


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["serial", "two workers"])
def test_one_load_for_each_cell_and_one_probe(run_process: RunProcess, log: Path, workers: list[str]) -> None:
    result = run_process(
        "--llm-matrix", "--llm-matrix-file=four.toml", "--llm-target=counting:Counting", "-rs", *workers,
        "--pyargs", "test_first.py", "test_second.py", "pytest_llmdevice.suite",
        "-k", "test_one or test_two or test_three or test_loads or test_generation or test_agreement",
    )  # fmt: skip
    count = 6 + 3
    deselected = 0 if workers else result.parseoutcomes()["deselected"]
    result.assert_outcomes(passed=4 * count, skipped=4 * count, deselected=deselected)
    lines = log.read_text().splitlines()
    loads = Counter(line.split()[1] for line in lines if line.startswith("load"))
    assert loads == {
        "llama.cpu.fp32.none.to": 1,
        "llama.cpu.bf16.none.to": 1,
        "gpt2.cpu.fp32.none.to": 1,
        "gpt2.cpu.bf16.none.to": 1,
    }
    assert lines.count("probe") == 1
    if workers:
        assert len({line.split()[2] for line in lines if line.startswith("load")}) == 2
    result.stdout.fnmatch_lines(["8 cells: 4 partly run, 4 not run"])


def test_a_failing_load_is_not_tried_again(pytester: pytest.Pytester, run_process: RunProcess, log: Path) -> None:
    pytester.makepyfile(
        counting=TARGET + "        \nclass Failing(Counting):\n    def load(self, checkpoint, cell):\n"
        "        super().load(checkpoint, cell)\n        raise OSError('disk on fire')\n"
    )
    result = run_process(
        "--llm-matrix", "--llm-matrix-file=four.toml", "--llm-target=counting:Failing", "--llm-cell=llama.cpu.fp32.*",
        "test_first.py", "test_second.py",
    )  # fmt: skip
    result.assert_outcomes(errors=6, deselected=42)
    assert sum(line.startswith("load") for line in log.read_text().splitlines()) == 1
    result.stdout.fnmatch_lines(["llama.cpu.fp32.none.to did not load: OSError: disk on fire"])


@pytest.mark.parametrize(("mode", "ours"), [("load", True), ("loadfile", False)])
def test_another_distribution_mode_asked_for_by_name_is_left_alone(
    pytester: pytest.Pytester, mode: str, ours: bool
) -> None:
    # `-n` makes "load" of no mode.
    config = pytester.parseconfigure("--tx=2*popen", f"--dist={mode}")
    distribution = Distribution(config, SimpleNamespace(cells=()))  # type: ignore[arg-type]
    made = distribution.pytest_xdist_make_scheduler(config, Producer("test"))
    assert isinstance(made, CellScheduling) == ours
    assert (made is None) != ours
