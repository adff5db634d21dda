"""What several runs make of one cell is held against a small model of what they are evidence for.

The model knows one sentence: a cell has passed where the latest run that tried it on a machine, together with other
runs of the same commit, made every check that is required, each of them passed, and it was not gone in the middle
unless one of those had come to the end.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Final, Literal

import pytest

from pytest_llmdevice.results.compare import compare
from pytest_llmdevice.results.gate import evaluate_gate, parse_fail_on
from pytest_llmdevice.results.merged_results import MergedResults, merge_runs
from pytest_llmdevice.results.run_header import Commit
from pytest_llmdevice.results.store import read
from pytest_llmdevice.results.update import update
from pytest_llmdevice.results.vocabulary import CheckOutcome
from results.builder import CPU_FP32, CUDA, LAPTOP, ResultsBuilder, check

State = Literal[
    "pass", "fail", "part", "skip", "unsupported", "unusable", "not offered", "killed", "killed early", "left out"
]
STATES: Final[tuple[State, ...]] = (
    "pass",
    "fail",
    "part",
    "skip",
    "unsupported",
    "unusable",
    "not offered",
    "killed",
    "killed early",
    "left out",
)
REQUIRED: Final = ("loads", "mode")
CHECKS: Final[dict[State, tuple[str, ...]]] = {
    "pass": REQUIRED,
    "fail": REQUIRED,
    "part": ("mode",),
    "killed": ("loads",),
}
"""What a run in that state has come to."""

COMMITS: Final = {"A": Commit(id="a" * 10), "B": Commit(id="b" * 10), "dirty": Commit(id="a" * 10, dirty=True)}


def made(number: int, state: State, commit: str, *, server: bool = False) -> ResultsBuilder:
    """A run in which the cell is in `state`."""
    checks: dict[str, CheckOutcome] = {"loads": "passed", "mode": "passed"}
    run = ResultsBuilder(
        {},
        name=f"run-{number}",
        started=f"2026-11-25T10:0{number}:00+00:00",
        commit=COMMITS[commit],
        required=REQUIRED,
        machine=CUDA if server else LAPTOP,
    )
    match state:
        case "pass":
            run.outcomes = {CPU_FP32: checks}
        case "fail":
            run.outcomes = {CPU_FP32: {**checks, "mode": "failed"}}
        case "part":
            run.outcomes = {CPU_FP32: {"mode": "passed"}}
            run.changes = {CPU_FP32: {"outcome": "partial"}}
        case "skip":
            run.outcomes = {CPU_FP32: dict.fromkeys(REQUIRED, "skipped")}
        case "unsupported" | "unusable" | "not offered":
            run.skipped = {CPU_FP32: (state, f"{state}: now")}
        case "killed" | "killed early":
            run.unfinished = [CPU_FP32]
            run.killed = True
            run.begun = {CPU_FP32: [check(CPU_FP32, "loads")] if state == "killed" else []}
        case "left out":
            run.skipped = {CPU_FP32: ("not requested", "not requested: --llm-cell leaves it out")}
    return run


def same_code(first: tuple[State, str], second: tuple[State, str]) -> bool:
    return first is second or (first[1] == second[1] != "dirty")


def passes(runs: list[tuple[State, str]]) -> bool:
    """The sentence above, for runs on one machine."""
    tried = [run for run in runs if run[0] != "left out"]
    if not tried:
        return False
    latest = tried[-1]
    counting = [run for run in tried if same_code(run, latest)]
    made_checks = {name for state, _ in counting for name in CHECKS.get(state, ())}
    whole = any(state == "pass" for state, _ in counting)
    cut_short = latest[0] in {"killed", "killed early"} and not whole
    return made_checks >= set(REQUIRED) and not cut_short and not any(state == "fail" for state, _ in counting)


def merged(folder: Path, runs: list[tuple[State, str]]) -> MergedResults:
    for number, (state, commit) in enumerate(runs):
        made(number, state, commit).write(folder)
    return merge_runs(read(folder))


@pytest.mark.parametrize("commits", ["AA", "AB", "dd"])
def test_two_runs_on_one_machine(tmp_path: Path, commits: str) -> None:
    first, second = ("dirty", "dirty") if commits == "dd" else (commits[0], commits[1])
    for number, states in enumerate(product(STATES, STATES)):
        runs = list(zip(states, (first, second), strict=True))
        results = merged(tmp_path / str(number), runs)
        (view,) = results.cells.values()
        assert (view.outcome == "passed") == passes(runs), (runs, view.outcome, view.lacking)
        assert results.passed(CPU_FP32) == passes(runs)


def test_three_runs_on_one_machine(tmp_path: Path) -> None:
    first: tuple[State, ...] = ("pass", "fail", "killed")
    last: tuple[State, ...] = ("left out", "part", "killed early")
    middle: tuple[State, ...] = ("pass", "skip", "killed", "part", "left out")
    for number, states in enumerate(product(first, middle, last)):
        runs: list[tuple[State, str]] = list(zip(states, "ABB", strict=True))
        (view,) = merged(tmp_path / str(number), runs).cells.values()
        assert (view.outcome == "passed") == passes(runs), (runs, view.outcome, view.lacking)


@pytest.mark.parametrize("commits", ["AA", "AB"])
@pytest.mark.parametrize("state", STATES)
def test_a_gate_passes_a_later_run_only_if_the_cell_did(tmp_path: Path, state: State, commits: str) -> None:
    """Beside an older run in which all was well, and against the baseline of that one."""
    first = [("pass", commits[0])]
    baseline = update(merged(tmp_path / "before", first), tmp_path / "b.jsonl", environment={})  # type: ignore[arg-type]
    runs: list[tuple[State, str]] = [("pass", commits[0]), (state, commits[1])]
    results = merged(tmp_path / "now", runs)
    held = compare(results, baseline)
    # What nobody asked for again stands as it was.
    good = passes(runs)
    assert evaluate_gate(held, results, parse_fail_on("")).good == good, held.transitions
    assert evaluate_gate(None, results, parse_fail_on("")).good == good


def test_a_machine_that_was_killed_is_not_hidden_by_one_that_was_not(tmp_path: Path) -> None:
    made(0, "pass", "A").write(tmp_path / "laptop")
    baseline = update(merge_runs(read(tmp_path / "laptop")), tmp_path / "b.jsonl", environment={})
    made(1, "killed", "A", server=True).write(tmp_path / "server")
    results = merge_runs(read([tmp_path / "laptop", tmp_path / "server"]))
    (view,) = results.cells.values()
    assert view.outcome == "aborted"
    # It had come to `loads`, and not to `mode`.
    assert view.checks["mode"].check.outcome == "aborted"
    comparison = compare(results, baseline)
    assert ("mode", "aborted", True) in [(each.check, each.after, each.failing) for each in comparison.transitions]
    assert not evaluate_gate(comparison, results, parse_fail_on("")).good


def test_a_run_that_was_killed_says_in_which_cell_it_was(tmp_path: Path) -> None:
    assert merged(tmp_path, [("killed early", "A")]).notes == (
        f"run-0.jsonl: the run did not come to its end; 1 of its cells are not finished; it was in {CPU_FP32.id}",
    )
