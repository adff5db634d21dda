"""The whole way: a baseline of version A, a version B with one difference of each kind, and the gate names those."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pytest_llmdevice.cli.command import command
from pytest_llmdevice.matrix import vocabulary
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.results.records import Check, Memory
from pytest_llmdevice.results.run_header import Commit
from pytest_llmdevice.results.transitions import NAMES, OF_CAUSE, Name, count_text
from pytest_llmdevice.results.vocabulary import CheckOutcome, SkipCause
from results.builder import ResultsBuilder, check

TARGET = "loaders:load"
_PLACES = [(model, dtype) for dtype in ("float32", "float16") for model in vocabulary.models()]
CELLS = {name: Cell(model, "cpu", dtype) for name, (model, dtype) in zip(NAMES, _PLACES, strict=False)}
"""A cell for each name, in which version B has that difference and no other."""

STEADY = Cell("llama", "cpu", "bfloat16")
QUANTIZED = Cell("llama", "cpu", "float32", "nf4")
CELLS["not-comparable"] = QUANTIZED
PASSED: dict[str, CheckOutcome | Check] = {"dtypes": "passed", "generation": "passed"}
VERSIONS = {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0", "bitsandbytes": "0.50.2"}


def version_a(folder: Path) -> None:
    """Three runs in which all is well, but for what B will have fixed and what B will have new."""
    outcomes: dict[Cell, dict[str, CheckOutcome | Check]] = {cell: dict(PASSED) for cell in (*CELLS.values(), STEADY)}
    outcomes[CELLS["fixed"]]["dtypes"] = "xfail"
    for number in range(3):
        ResultsBuilder(
            outcomes, name=f"a-{number}", started=f"2026-11-25T10:0{number}:00+00:00", target=TARGET, versions=VERSIONS
        ).write(folder)


def version_b(folder: Path) -> None:
    """The next commit, with one planted difference of each name."""
    outcomes: dict[Cell, dict[str, CheckOutcome | Check]] = {cell: dict(PASSED) for cell in (*CELLS.values(), STEADY)}
    outcomes[CELLS["regression"]]["dtypes"] = "failed"
    outcomes[CELLS["aborted"]]["dtypes"] = "aborted"
    outcomes[CELLS["hollow"]]["dtypes"] = check(CELLS["hollow"], "dtypes", "hollow", evidence={}, target=TARGET)
    causes: dict[Name, SkipCause] = {name: cause for cause, name in OF_CAUSE.items()}
    for name, cause in causes.items():
        outcomes[CELLS[name]]["dtypes"] = check(CELLS[name], "dtypes", "skipped", cause=cause, target=TARGET)
    outcomes[CELLS["excused"]]["dtypes"] = check(CELLS["excused"], "dtypes", "xfail", undeclared=True, target=TARGET)
    del outcomes[CELLS["vanished"]]["dtypes"]
    outcomes[CELLS["expected"]]["dtypes"] = "xfail"
    outcomes[CELLS["upstream"]]["dtypes"] = "upstream"
    outcomes[CELLS["new"]]["tied"] = "passed"
    del outcomes[CELLS["unused"]]
    changes: dict[Cell, dict[str, Any]] = {
        CELLS["other-tokens"]: {"tokens": ((1, 2, 3), (4, 7, 6))},
        CELLS["slower"]: {"load_seconds": 0.4},
        CELLS["larger"]: {"load_memory": (Memory(place="host", before=2**29, after=2**29, peak=2**29 + 2**24),)},
    }
    ResultsBuilder(
        outcomes,
        changes=changes,
        name="b",
        started="2026-11-26T10:00:00+00:00",
        target=TARGET,
        # Only the quantized cell depends on it.
        versions=VERSIONS | {"bitsandbytes": "0.51.0"},
        commit=Commit(id="fedcba9876543210"),
    ).write(folder)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the baseline of A and the results of B."""
    folder = tmp_path_factory.mktemp("planted")
    version_a(folder / "a")
    version_b(folder / "b")
    arguments = ["gate", str(folder / "a"), "--baseline", str(folder / "baseline.jsonl"), "--update"]
    written = CliRunner(env={"CI": ""}).invoke(command, arguments)
    assert written.exit_code == 0, written.output
    return folder


def gate(work: Path, *arguments: str) -> tuple[int, str]:
    found = CliRunner().invoke(
        command, ["gate", str(work / "b"), "--baseline", str(work / "baseline.jsonl"), *arguments]
    )
    return found.exit_code, found.output


def test_version_a_is_as_good_as_itself(work: Path) -> None:
    found = CliRunner().invoke(command, ["gate", str(work / "a"), "--baseline", str(work / "baseline.jsonl")])
    assert (found.exit_code, found.output) == (0, "gate passed: 44 unchanged\ntarget loaders:load\n")


def test_the_gate_names_exactly_what_was_planted(work: Path) -> None:
    exit_code, output = gate(work, "--json")
    found = json.loads(output)
    assert exit_code == 1
    # Two checks of a cell that the matrix does not have, two of a cell under another version.
    twice = {"unused", "not-comparable"}
    assert found["counts"] == {name: 2 if name in twice else 1 for name in NAMES}
    assert {(each["name"], each["cell"]) for each in found["transitions"]} == {
        (name, cell.id) for name, cell in CELLS.items()
    }
    assert {each["target"] for each in found["transitions"]} == {TARGET}


@pytest.mark.parametrize("name", NAMES)
def test_each_alone_fails_the_gate_and_is_the_only_reason(work: Path, name: Name) -> None:
    exit_code, output = gate(work, "--json", "--fail-on", name)
    assert exit_code == 1
    (reason,) = json.loads(output)["reasons"]
    assert reason == count_text(name, int(reason.partition(" ")[0]))


def test_none_of_them_fails_where_nothing_that_is_there_is_asked_for(work: Path) -> None:
    exit_code, _ = gate(work, "--fail-on", "slower:200%,memory:2000%")
    assert exit_code == 0


def test_by_default_it_fails_for_what_is_worse_for_certain(work: Path) -> None:
    exit_code, output = gate(work)
    assert exit_code == 1
    assert output.splitlines()[0] == (
        "gate failed: 1 regression; 1 aborted; 1 hollow; 1 vanished; 1 skipped; 1 unsupported now; 1 unusable now; "
        "1 withdrawn; 1 not applicable any more; 1 excused"
    )
