"""The answer of the gate in lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from results.builder import CPU_BF16, CPU_FP32, ResultsBuilder

from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.report.gate_text import MOST_LINES, gate_lines
from pytest_llmdevice.report.model import ReportModel
from pytest_llmdevice.results.gate import evaluate_gate, parse_fail_on
from pytest_llmdevice.results.merged_results import MergedResults, merge_runs
from pytest_llmdevice.results.store import read
from pytest_llmdevice.results.transitions import Comparison, Name, Transition
from pytest_llmdevice.results.vocabulary import OUTCOME_WORDS, CheckOutcome

EMPTY = MergedResults((), {})


def comparison(*transitions: Transition, unchanged: int = 1, notes: tuple[str, ...] = ()) -> Comparison:
    return Comparison("b.jsonl", transitions, unchanged, notes)


def transition(name: Name, *, failing: bool = False, detail: str = "why", cell: str = CPU_FP32.id) -> Transition:
    return Transition(name, cell, "dtypes", "builtin", "passed", "failed", detail, failing)


def compared(held: Comparison, fail_on: str = "", missing: tuple[str, ...] = ()) -> list[str]:
    """The lines about `held`."""
    gate_result = evaluate_gate(held, EMPTY, parse_fail_on(fail_on), missing)
    return list(gate_lines(gate_result, ReportModel.of(EMPTY, held)))


def without_baseline(folder: Path) -> list[str]:
    """The lines about the results in `folder`."""
    merged = merge_runs(read(folder))
    return list(gate_lines(evaluate_gate(None, merged, parse_fail_on("")), ReportModel.of(merged)))


@pytest.mark.parametrize("outcome", ["failed", "error", "hollow", "xpass"])
def test_without_a_baseline_the_problems_are_listed(tmp_path: Path, outcome: CheckOutcome) -> None:
    ResultsBuilder({CPU_FP32: {"dtypes": outcome}, CPU_BF16: {"dtypes": "passed"}}).write(tmp_path)
    lines = without_baseline(tmp_path)
    words = OUTCOME_WORDS[outcome]
    target, *problems = lines[1:4]
    assert target == "target builtin, the loader of pytest-llmdevice itself: no code of a project was tested"
    assert [lines[0], *problems] == [
        f"gate failed: 1 cell of 2: 1 {words}",
        "1 problem:",
        f"  1. {words} in 1 cell: dtypes",
    ]
    assert lines[-1] == f"     in {CPU_FP32.id}"


def test_of_many_cells_a_few_are_listed_and_of_their_models_all(tmp_path: Path) -> None:
    models = ("gpt2", "llama", "mistral", "opt", "qwen2")
    cells = [Cell(model, "cpu", "float32") for model in models]
    ResultsBuilder({cell: {"dtypes": "failed"} for cell in cells}).write(tmp_path)
    assert without_baseline(tmp_path)[-1].endswith(" and 2 more, of gpt2, llama, mistral, opt, qwen2")


def test_without_a_baseline_an_aborted_cell_is_listed(tmp_path: Path) -> None:
    ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}, unfinished=[CPU_BF16], killed=True).write(tmp_path)
    assert "  1. aborted in 1 cell: the cell" in without_baseline(tmp_path)


def test_a_baseline_of_which_nothing_could_be_compared_is_no_silence() -> None:
    lines = compared(comparison(transition("not-comparable"), unchanged=0))
    assert lines[0] == "gate passed: 1 not comparable, 0 unchanged"
    assert lines[1].startswith("nothing could be compared with the baseline")


def test_missing_coverage_is_listed() -> None:
    assert compared(comparison(), missing=("device cuda:0: none", "dtype float16: none"))[:3] == [
        "gate failed: coverage is missing, 2 values",
        "  device cuda:0: none",
        "  dtype float16: none",
    ]


def test_what_fails_comes_first_then_the_rest_then_notes() -> None:
    held = comparison(transition("skipped"), transition("slower"), transition("vanished"), notes=("a note",))
    assert compared(held, "slower") == [
        "gate failed: 1 slower",
        "FAIL 1 slower:",
        "  llama.cpu.fp32.none.to dtypes: passed -> failed: why",
        "1 skipped:",
        "  1 in llama.cpu.fp32.none.to: why",
        "1 vanished:",
        "  llama.cpu.fp32.none.to dtypes: passed -> failed: why",
        "1 vanished, 1 skipped, 1 slower, 1 unchanged",
        "note: a note",
    ]


def test_of_many_the_first_are_listed_and_the_rest_counted() -> None:
    lines = compared(comparison(*(transition("regression", detail=str(number)) for number in range(1234))))
    assert lines[0] == "gate failed: 1,234 regressions"
    assert lines[2 + MOST_LINES] == "  ... and 1,214 more changes, of llama"
    assert len(lines) == MOST_LINES + 4


def test_thousands_with_one_cause_are_one_line() -> None:
    held = comparison(
        *(transition("not-comparable", detail="torch 1 -> 2", cell=cell) for cell in ("a", "b") for _ in range(600)),
        transition("not-comparable", detail="other", failing=True),
    )
    assert compared(held, "regression")[1:4] == [
        "1,201 not comparable:",
        "  llama.cpu.fp32.none.to dtypes: passed -> failed: other",
        "  1,200 in 2 cells (a, ...): torch 1 -> 2",
    ]


def test_a_target_of_ones_own_is_named_and_outcomes_are_in_words() -> None:
    held = comparison(Transition("expected", "c", "", "mine:loader", "passed", "xfail"))
    assert "  c of mine:loader: passed -> failed as expected" in compared(held)


def test_conflicts_are_listed(tmp_path: Path) -> None:
    ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}, name="one").write(tmp_path)
    ResultsBuilder({CPU_FP32: {"dtypes": "failed"}}, name="two").write(tmp_path)
    assert without_baseline(tmp_path)[-2:] == [
        "1 conflict, the worse outcome counts:",
        "  llama.cpu.fp32.none.to dtypes: failed in two, passed in one: one commit on one machine has two outcomes",
    ]
