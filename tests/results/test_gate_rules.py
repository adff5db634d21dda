"""Which differences fail, and what the gate answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.results.gate import evaluate_gate, parse_fail_on
from pytest_llmdevice.results.merged_results import MergedResults, merge_runs
from pytest_llmdevice.results.store import read
from pytest_llmdevice.results.transitions import (
    DEFAULT,
    FAIL_ON_WORDS,
    FAILING,
    INCOMPLETE,
    NAMES,
    Comparison,
    Name,
    Transition,
)
from pytest_llmdevice.results.vocabulary import OUTCOME_WORDS, CheckOutcome
from results.builder import CPU_BF16, CPU_FP32, ResultsBuilder

EMPTY = MergedResults((), {})


def comparison(*transitions: Transition, unchanged: int = 1, notes: tuple[str, ...] = ()) -> Comparison:
    return Comparison("b.jsonl", transitions, unchanged, notes)


def transition(name: Name, *, failing: bool = False, detail: str = "why", cell: str = CPU_FP32.id) -> Transition:
    return Transition(name, cell, "dtypes", "builtin", "passed", "failed", detail, failing)


def test_words_and_percentages_are_read() -> None:
    found = parse_fail_on(" regression, slower:12.5% ,memory:5")
    assert found.names == {"regression", "slower", "larger"}
    assert (found.slower, found.larger) == (12.5, 5.0)


def test_without_percentages_the_usual_ones_hold() -> None:
    assert (parse_fail_on("slower,larger").slower, parse_fail_on("slower,larger").larger) == (20.0, 10.0)


@pytest.mark.parametrize("text", ["", "  "])
def test_nothing_stands_for_the_default(text: str) -> None:
    assert parse_fail_on(text) == parse_fail_on(DEFAULT)


def test_every_name_can_be_asked_for() -> None:
    assert parse_fail_on(",".join(FAIL_ON_WORDS)).names == {*NAMES, FAILING, INCOMPLETE}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("regresion", "unknown difference 'regresion'; did you mean 'regression'? (valid: regression, aborted,"),
        ("regression,", "unknown difference ''"),
        ("slower:abc", "'abc' is not a percentage above 0 and up to 10000; write slower:20%"),
        ("slower:-5%", "'-5%' is not a percentage"),
        ("slower:nan", "'nan' is not a percentage"),
        ("memory:", "'' is not a percentage above 0 and up to 10000; write memory:20%"),
        ("vanished:20%", "vanished takes no percentage; only slower and memory do"),
        ("memory,larger", "larger is given twice; leave one out"),
    ],
)
def test_a_word_that_is_none_and_a_percentage_that_is_none_are_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_fail_on(text)
    assert str(raised.value).startswith(f"fail-on {text!r}: ")
    assert message in str(raised.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_fails_where_it_is_asked_for_and_nowhere_else(name: Name) -> None:
    held = comparison(transition(name))
    assert not evaluate_gate(held, EMPTY, parse_fail_on(name)).good
    others = ",".join(other for other in NAMES if other != name)
    assert evaluate_gate(held, EMPTY, parse_fail_on(others)).good


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("regression", False),
        ("aborted", False),
        ("hollow", False),
        ("vanished", False),
        ("skipped", False),
        ("unsupported", False),
        ("unusable", False),
        ("withdrawn", False),
        ("inapplicable", False),
        ("excused", False),
        ("absent", True),
        ("not-requested", True),
        ("other-tokens", True),
        ("slower", True),
        ("larger", True),
        ("not-comparable", True),
        ("expected", True),
        ("unused", True),
        ("fixed", True),
        ("new", True),
    ],
)
def test_by_default_fails_what_is_worse_for_certain(name: Name, *, good: bool) -> None:
    assert evaluate_gate(comparison(transition(name)), EMPTY, parse_fail_on("")).good == good


@pytest.mark.parametrize("name", ["new", "not-comparable", "fixed"])
def test_by_default_a_check_that_fails_and_is_not_known_as_failing_fails_under_any_name(name: Name) -> None:
    gate_result = evaluate_gate(comparison(transition(name, failing=True)), EMPTY, parse_fail_on(""))
    assert gate_result.reasons == (f"1 {name.replace('-', ' ')}, failing now",)


def test_a_failure_counts_once() -> None:
    assert evaluate_gate(comparison(transition("regression", failing=True)), EMPTY, parse_fail_on("")).reasons == (
        "1 regression",
    )


@pytest.mark.parametrize("name", ["skipped", "absent", "not-requested", "unused"])
def test_a_baseline_of_which_nothing_ran_fails_whatever_is_asked_for(name: Name) -> None:
    gate_result = evaluate_gate(comparison(transition(name), unchanged=0), EMPTY, parse_fail_on("slower"))
    assert gate_result.reasons == (
        "nothing of b.jsonl ran here: check the matrix, the target, the devices and the baseline",
    )


@pytest.mark.parametrize(
    ("outcome", "good"),
    [("passed", True), ("xfail", True), ("failed", False), ("error", False), ("hollow", False), ("xpass", False)],
)
def test_without_a_baseline_whatever_makes_a_run_red_fails(
    tmp_path: Path, outcome: CheckOutcome, *, good: bool
) -> None:
    ResultsBuilder({CPU_FP32: {"dtypes": outcome}, CPU_BF16: {"dtypes": "passed"}}).write(tmp_path)
    merged = merge_runs(read(tmp_path))
    gate_result = evaluate_gate(None, merged, parse_fail_on(""))
    assert gate_result.good == good
    if not good:
        assert gate_result.reasons == (f"1 cell of 2: 1 {OUTCOME_WORDS[outcome]}",)


def test_without_a_baseline_an_aborted_cell_fails(tmp_path: Path) -> None:
    ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}, unfinished=[CPU_BF16], killed=True).write(tmp_path)
    merged = merge_runs(read(tmp_path))
    gate_result = evaluate_gate(None, merged, parse_fail_on(""))
    assert gate_result.reasons == ("1 cell of 2: 1 aborted",)


def test_results_in_which_no_cell_ran_fail(tmp_path: Path) -> None:
    ResultsBuilder({}, skipped={CPU_FP32: ("absent", "absent: nothing here")}).write(tmp_path)
    assert evaluate_gate(None, merge_runs(read(tmp_path)), parse_fail_on("")).reasons == ("no cell ran at all",)
