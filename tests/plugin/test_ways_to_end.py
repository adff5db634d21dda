"""However a test, a cell or a run ends: it is green only where the cell was loaded and checked.

Each way is a row of docs/ways.md: what the grid, `[require]`, the gate and the gate with a baseline say, and the exit
status of the run itself. With `LLMDEVICE_WAYS=FILE` the rows are written into that file, for the document.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from plugin.ways import LOADER, MATRIX, WAYS, Way

from pytest_llmdevice.errors import ResultsError
from pytest_llmdevice.matrix.expand import load
from pytest_llmdevice.matrix.required import missing
from pytest_llmdevice.results.baseline import Baseline
from pytest_llmdevice.results.compare import compare
from pytest_llmdevice.results.gate import evaluate_gate, parse_fail_on
from pytest_llmdevice.results.merged_results import merge_runs
from pytest_llmdevice.results.store import read
from pytest_llmdevice.results.update import update
from pytest_llmdevice.results.vocabulary import OUTCOME_WORDS

WRITTEN: Final = "LLMDEVICE_WAYS"

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "ways.md"

Run = Callable[[Way], pytest.RunResult]


@dataclass(frozen=True)
class Row:
    """What is said of one way."""

    way: Way
    grid: str
    require: bool
    gate: bool
    against_baseline: bool
    status: int

    @property
    def line(self) -> str:
        """As a row of the table."""
        met = "met" if self.require else "not met"
        words = ["fails", "passes"]
        parts = (
            self.way.name,
            self.grid,
            met,
            words[self.gate],
            words[self.against_baseline],
            str(self.status),
        )
        return f"| {' | '.join(parts)} |"


@pytest.fixture
def run(project: pytest.Pytester, run_process: Callable[..., pytest.RunResult]) -> Run:
    """`run(way)`: a run of a project in which that happens."""

    def run_way(way: Way) -> pytest.RunResult:
        (project.path / "one.toml").write_text(MATRIX)
        project.makeconftest(way.conftest)
        project.makepyfile(loader=LOADER.format(before=way.before, after=way.after))
        project.syspathinsert()
        arguments = ("--llm-matrix", "--llm-matrix-file=one.toml", "--llm-target=loader:Loader", "--llm-results=r")
        project.makepyfile(planted_way=way.plugin)
        given = (*arguments, *way.arguments, *way.chosen)
        given = ("-p", "planted_way", *given) if way.plugin else given
        return run_process(*given) if way.own_process else project.runpytest(*given)

    return run_way


@pytest.fixture(scope="module")
def known() -> dict[str, Baseline]:
    """The baseline of a run in which all is well, once there is one."""
    return {}


def row(way: Way, folder: Path, status: int, baseline: Baseline) -> Row:
    try:
        results = merge_runs(read(folder / "r"))
    except ResultsError:
        return Row(way, "no results", require=False, gate=False, against_baseline=False, status=status)
    views = list(results.cells.values())
    require = load("one.toml", folder).require
    assert require is not None
    rules = parse_fail_on("")
    return Row(
        way,
        ", ".join(OUTCOME_WORDS[view.outcome] for view in views),
        require=not missing(require, [view.cell for view in views], results.passed),
        gate=evaluate_gate(None, results, rules).good,
        against_baseline=evaluate_gate(compare(results, baseline), results, rules).good,
        status=status,
    )


@pytest.mark.parametrize("way", WAYS, ids=[way.name for way in WAYS])
def test_it_is_green_only_where_the_cell_was_loaded_and_checked(
    way: Way, run: Run, project: pytest.Pytester, known: dict[str, Baseline]
) -> None:
    if not known:
        run(WAYS[0])
        known["good"] = update(
            merge_runs(read(project.path / "r")), project.path / "b.jsonl", force=("ci", "dirty"), environment={}
        )
        (results,) = (project.path / "r").iterdir()
        results.unlink()
    result = run(way)
    made = row(way, project.path, int(result.ret), known["good"])
    if way is not WAYS[0]:
        assert made.grid != "passed"
        assert not made.require
        assert not made.against_baseline
        assert not made.gate or made.grid == "failed as expected"
    else:
        assert made.line.endswith("| passed | met | passes | passes | 0 |")
    if WRITTEN in os.environ:
        with Path(os.environ[WRITTEN]).open("a", encoding="utf-8") as file:
            file.write(f"{made.line}\n")
    assert made.line in DOCUMENT.read_text("utf-8").splitlines()


def test_every_row_of_the_document_is_a_way() -> None:
    rows = [line for line in DOCUMENT.read_text("utf-8").splitlines() if line.startswith("| ")][1:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in rows if not line.startswith("|---")] == [
        way.name for way in WAYS
    ]
