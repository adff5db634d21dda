"""What changed since a baseline is told by its cause: the root first, every model named."""

from __future__ import annotations

from pathlib import Path

from results.builder import DTYPE_FINDING, ResultsBuilder, check

from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.report.changes import change_text, changes_of, left_text, worst_changes
from pytest_llmdevice.report.problems import Problem, find_problems
from pytest_llmdevice.results.merged_results import merge_runs
from pytest_llmdevice.results.records import Check, RecordedFinding
from pytest_llmdevice.results.run_header import BUILTIN
from pytest_llmdevice.results.transitions import Comparison, Transition

LOGITS = RecordedFinding(where="logits", expected="x", actual="y", hint="other-logits")
MODELS = ("gpt2", "llama", "opt")
CELLS = [Cell(model, "cpu", "bfloat16") for model in MODELS]
ALONE = Cell("zamba", "cpu", "float32")


def failed(cell: Cell, name: str, finding: RecordedFinding) -> Check:
    return check(cell, name, "failed", findings=(finding,))


def regression(cell: Cell, name: str, *, failing: bool = True) -> Transition:
    return Transition("regression", cell.id, name, BUILTIN, "passed", "failed", f"{name} says", failing)


def made(folder: Path) -> tuple[Comparison, list[Problem]]:
    """Three models in a wrong dtype, with what follows from it, and a fourth with a fault of its own."""
    outcomes = {
        cell: {"agreement": failed(cell, "agreement", LOGITS), "dtypes": failed(cell, "dtypes", DTYPE_FINDING)}
        for cell in CELLS
    }
    outcomes[ALONE] = {"padding": failed(ALONE, "padding", LOGITS.model_copy(update={"hint": "masked-row"}))}
    problems = find_problems(merge_runs([ResultsBuilder(outcomes).file(folder)]))
    # As a comparison sorts them.
    transitions = [regression(cell, name) for cell in CELLS for name in ("agreement", "dtypes")]
    return Comparison("baseline", (*transitions, regression(ALONE, "padding")), 0), problems


def test_one_cause_is_one_change_with_its_root_first(tmp_path: Path) -> None:
    comparison, problems = made(tmp_path)
    first, second = changes_of(comparison.transitions, problems)
    assert (first.first.cell, first.first.check) == (CELLS[0].id, "dtypes")
    assert first.elsewhere == [cell.id for cell in CELLS[1:]]
    assert {transition.check for transition in first.follows} == {"agreement"}
    assert change_text(first) == (
        "gpt2.cpu.bf16.none.to dtypes: passed -> failed: dtypes says; also in 2 cells, of llama, opt; "
        "and 1 check that follows from it"
    )
    assert (second.first.cell, second.alike, second.follows) == (ALONE.id, [], [])


def test_no_model_is_hidden_where_only_the_worst_are_told(tmp_path: Path) -> None:
    comparison, problems = made(tmp_path)
    told = worst_changes(comparison, problems, 1)
    assert told[0].startswith("regression: gpt2.cpu.bf16.none.to dtypes")
    assert told[1:] == ["and 1 more change, of zamba"]
    changes = changes_of(comparison.transitions, problems)
    assert left_text(changes) == "and 2 more changes, of gpt2, llama, opt, zamba"


def test_what_is_part_of_no_problem_is_a_change_of_its_own(tmp_path: Path) -> None:
    _, problems = made(tmp_path)
    transitions = [regression(cell, "dtypes", failing=False) for cell in CELLS]
    assert [change.first for change in changes_of(transitions, problems)] == transitions


def test_names_are_told_apart_and_the_worst_comes_first(tmp_path: Path) -> None:
    _, problems = made(tmp_path)
    hollow = Transition("hollow", CELLS[0].id, "agreement", BUILTIN, "passed", "hollow", "", failing=True)
    changes = changes_of([hollow, regression(CELLS[0], "dtypes")], problems)
    assert [change.first.name for change in changes] == ["regression", "hollow"]


def test_all_checks_that_found_the_cause_are_named(tmp_path: Path) -> None:
    same = RecordedFinding(where="forward", expected="no exception", actual="no kernel", hint="h", kind="exception")
    names = ("forward", "generation", "cache")
    outcomes = {ALONE: {name: failed(ALONE, name, same) for name in names}}
    problems = find_problems(merge_runs([ResultsBuilder(outcomes).file(tmp_path)]))
    (change,) = changes_of([regression(ALONE, name) for name in names], problems)
    assert change.also_found_by == ["generation", "cache"]
    assert change_text(change).endswith("; found by generation, cache too")


def test_a_check_with_two_causes_counts_for_the_problem_of_most_cells(tmp_path: Path) -> None:
    left, empty = (RecordedFinding(where="head", expected="a", actual=hint, hint=hint) for hint in ("left", "empty"))
    outcomes = {cell: {"placement": failed(cell, "placement", left)} for cell in CELLS}
    outcomes[CELLS[0]] = {"placement": check(CELLS[0], "placement", "failed", findings=(empty, left))}
    problems = find_problems(merge_runs([ResultsBuilder(outcomes).file(tmp_path)]))
    changes = changes_of([regression(cell, "placement") for cell in CELLS], problems)
    assert [change.elsewhere for change in changes] == [[cell.id for cell in CELLS[1:]]]
