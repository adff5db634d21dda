"""What is wrong in results, each problem once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from results.builder import CPU_BF16, CPU_FP32, DTYPE_FINDING, SIMULATED, ResultsBuilder, check

from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.report.problems import EXAMPLES, Problem, find_problems
from pytest_llmdevice.results.merged_results import merge_runs
from pytest_llmdevice.results.records import Check, RecordedFinding
from pytest_llmdevice.results.vocabulary import CheckOutcome


def problems(folder: Path, checks: Mapping[Cell, Mapping[str, CheckOutcome | Check]], **values: Any) -> list[Problem]:
    return find_problems(merge_runs([ResultsBuilder(checks, **values).file(folder)]))


def failed(cell: Cell, name: str, *findings: RecordedFinding, outcome: CheckOutcome = "failed") -> Check:
    return check(cell, name, outcome, findings=findings)


def raised(where: str, kind: str = "exception") -> RecordedFinding:
    return RecordedFinding(where=where, expected="no exception", actual="ValueError: the head has gone", kind=kind)


def test_findings_are_grouped_by_their_hint_over_cells_and_checks(tmp_path: Path) -> None:
    other = DTYPE_FINDING.model_copy(update={"where": "model.norm.weight"})
    [problem] = problems(
        tmp_path,
        {CPU_FP32: {"dtypes": "failed"}, CPU_BF16: {"values": failed(CPU_BF16, "values", other, DTYPE_FINDING)}},
    )
    assert [view.id for view in problem.cells] == [CPU_FP32.id, CPU_BF16.id]
    assert problem.name == "dtype-dropped"
    assert problem.title == "failed in 2 cells: dtypes, values"
    assert problem.description == "lm_head.weight: expected bfloat16, found float32"
    assert (problem.findings, problem.examples) == (3, [DTYPE_FINDING, other])


def test_one_exception_in_many_places_is_one_problem(tmp_path: Path) -> None:
    checks = {name: failed(CPU_FP32, name, raised(f"{name}, in lm_head")) for name in ("forward", "generation")}
    [problem] = problems(tmp_path, {CPU_FP32: checks})
    assert problem.title == "failed in 1 cell: forward, generation"


def test_the_same_value_in_two_places_is_two_problems(tmp_path: Path) -> None:
    checks = {
        name: failed(CPU_FP32, name, raised("the same", kind="")) for name in ("mine::test_one", "mine::test_two")
    }
    assert len(problems(tmp_path, {CPU_FP32: checks})) == 2


def test_a_load_that_fails_is_one_problem_of_all_checks(tmp_path: Path) -> None:
    finding = RecordedFinding(where="load", expected="a model", actual="OSError: no file in /root/a/b")
    checks = {name: failed(CPU_FP32, name, finding, outcome="error") for name in ("loads", "meta", "dtypes")}
    [problem] = problems(tmp_path, {CPU_FP32: checks})
    assert problem.title == "error in 1 cell: loads, meta, dtypes"
    # The same finding at each of them is not another one.
    assert problem.findings == 1


def test_a_failure_without_findings_is_grouped_by_what_it_says(tmp_path: Path) -> None:
    def error(cell: Cell, mebibytes: int) -> dict[str, CheckOutcome | Check]:
        message = f"out of memory: {mebibytes} MiB"
        return {"loads": check(cell, "loads", "error", failure="out-of-memory", findings=(), message=message)}

    [problem] = problems(tmp_path, {CPU_FP32: error(CPU_FP32, 20), CPU_BF16: error(CPU_BF16, 30)})
    assert (problem.name, problem.finding, problem.findings) == ("out of memory: 20 MiB", None, 0)
    assert problem.place == "error in 2 cells"


def test_a_cell_whose_run_was_gone_is_a_problem_too(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, {}, unfinished=[CPU_FP32], killed=True)
    assert problem.title == "aborted in 1 cell: the cell"


def test_a_cell_that_is_recorded_as_bad_without_a_check_is_a_problem(tmp_path: Path) -> None:
    file = ResultsBuilder({CPU_FP32: {"loads": "failed"}}).file(tmp_path)
    file.checks.clear()
    [problem] = find_problems(merge_runs([file]))
    assert problem.description == "the whole cell is recorded as failed"


def test_expected_failures_are_no_problem(tmp_path: Path) -> None:
    assert problems(tmp_path, {CPU_FP32: {"loads": "xfail"}}) == []


def test_a_problem_keeps_a_few_findings_and_counts_all(tmp_path: Path) -> None:
    findings = [DTYPE_FINDING.model_copy(update={"where": f"layer.{place}"}) for place in range(9)]
    [problem] = problems(tmp_path, {CPU_FP32: {"dtypes": failed(CPU_FP32, "dtypes", *findings)}})
    assert (len(problem.examples), problem.findings) == (EXAMPLES, 9)


def test_the_problem_of_the_most_cells_is_first_and_among_equals_the_worst(tmp_path: Path) -> None:
    cells = [Cell(model, "cpu", "float32") for model in ("gpt2", "opt", "llama", "mistral")]
    outcomes: tuple[CheckOutcome, ...] = ("hollow", "error", "failed", "failed")
    made = zip(cells, outcomes, strict=True)
    found = problems(
        tmp_path,
        {cell: {"loads": check(cell, "loads", outcome, findings=(), message=outcome)} for cell, outcome in made},
    )
    assert [problem.title for problem in found] == [
        "failed in 2 cells: loads",
        "error in 1 cell: loads",
        "hollow in 1 cell: loads",
    ]


def test_the_first_cell_of_a_problem_is_a_real_one(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, {SIMULATED: {"dtypes": "failed"}, CPU_FP32: {"dtypes": "failed"}})
    assert problem.first.id == CPU_FP32.id
    assert problem.place == "failed in 2 cells (1 simulated)"


def test_a_cell_of_two_targets_is_counted_twice(tmp_path: Path) -> None:
    runs = [
        ResultsBuilder({CPU_FP32: {"dtypes": "failed"}}, name=name, target=target).file(tmp_path)
        for name, target in (("a", "builtin"), ("b", "mine:load"))
    ]
    [problem] = find_problems(merge_runs(runs))
    assert [view.target for view in problem.cells] == ["builtin", "mine:load"]
