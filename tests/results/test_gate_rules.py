"""Which differences fail, the verdict, and how it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.results.gate import DEFAULT, FAILING, WORDS, judge, parse
from pytest_llmdevice.results.gate_text import MOST_LINES, lines
from pytest_llmdevice.results.merged_results import MergedResults, merge_runs
from pytest_llmdevice.results.store import read
from pytest_llmdevice.results.transitions import NAMES, Comparison, Name, Transition
from pytest_llmdevice.results.vocabulary import Outcome
from results.builder import CPU_BF16, CPU_FP32, ResultsBuilder

EMPTY = MergedResults((), {})


def comparison(*transitions: Transition, unchanged: int = 1, notes: tuple[str, ...] = ()) -> Comparison:
    return Comparison("b.jsonl", transitions, unchanged, notes)


def transition(name: Name, *, failing: bool = False, detail: str = "why", cell: str = CPU_FP32.id) -> Transition:
    return Transition(name, cell, "dtypes", "builtin", "passed", "failed", detail, failing)


def test_words_and_percentages_are_read() -> None:
    found = parse(" regression, slower:12.5% ,memory:5")
    assert found.names == {"regression", "slower", "larger"}
    assert (found.slower, found.larger) == (12.5, 5.0)


def test_without_percentages_the_usual_ones_hold() -> None:
    assert (parse("slower,larger").slower, parse("slower,larger").larger) == (20.0, 10.0)


@pytest.mark.parametrize("text", ["", "  "])
def test_nothing_stands_for_the_default(text: str) -> None:
    assert parse(text) == parse(DEFAULT)


def test_every_name_can_be_asked_for() -> None:
    assert parse(",".join(WORDS)).names == {*NAMES, FAILING}


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
        parse(text)
    assert str(raised.value).startswith(f"fail-on {text!r}: ")
    assert message in str(raised.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_fails_where_it_is_asked_for_and_nowhere_else(name: Name) -> None:
    held = comparison(transition(name))
    assert not judge(held, EMPTY, parse(name)).good
    others = ",".join(other for other in NAMES if other != name)
    assert judge(held, EMPTY, parse(others)).good


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("regression", False),
        ("aborted", False),
        ("hollow", False),
        ("vanished", False),
        ("skipped", True),
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
    assert judge(comparison(transition(name)), EMPTY, parse("")).good == good


@pytest.mark.parametrize("name", ["new", "not-comparable", "skipped", "fixed"])
def test_by_default_a_check_that_fails_and_is_not_known_as_failing_fails_under_any_name(name: Name) -> None:
    verdict = judge(comparison(transition(name, failing=True)), EMPTY, parse(""))
    assert verdict.reasons == (f"1 {name.replace('-', ' ')}, failing now",)


def test_a_failure_counts_once() -> None:
    assert judge(comparison(transition("regression", failing=True)), EMPTY, parse("")).reasons == ("1 regression",)


@pytest.mark.parametrize("name", ["skipped", "unused"])
def test_a_baseline_of_which_nothing_ran_fails_whatever_is_asked_for(name: Name) -> None:
    verdict = judge(comparison(transition(name), unchanged=0), EMPTY, parse("slower"))
    assert verdict.reasons == (
        "nothing of b.jsonl ran here: check the matrix, the target, the devices and the baseline",
    )


def test_a_baseline_of_which_nothing_could_be_compared_is_no_failure_and_no_silence() -> None:
    held = comparison(transition("not-comparable"), unchanged=0)
    verdict = judge(held, EMPTY, parse(""))
    assert verdict.good
    assert list(lines(verdict, held, EMPTY))[1].startswith("nothing could be compared with the baseline")


@pytest.mark.parametrize(
    ("outcome", "good"),
    [("passed", True), ("xfail", True), ("failed", False), ("error", False), ("hollow", False), ("xpass", False)],
)
def test_without_a_baseline_whatever_makes_a_run_red_fails(tmp_path: Path, outcome: Outcome, *, good: bool) -> None:
    ResultsBuilder({CPU_FP32: {"dtypes": outcome}, CPU_BF16: {"dtypes": "passed"}}).write(tmp_path)
    merged = merge_runs(read(tmp_path))
    verdict = judge(None, merged, parse(""))
    assert verdict.good == good
    if not good:
        assert verdict.reasons == (f"1 cell of 2: 1 {outcome}",)
        assert list(lines(verdict, None, merged))[1].startswith(f"  {CPU_FP32.id} dtypes: {outcome}")


def test_without_a_baseline_an_aborted_cell_fails(tmp_path: Path) -> None:
    ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}, unfinished=[CPU_BF16], killed=True).write(tmp_path)
    merged = merge_runs(read(tmp_path))
    verdict = judge(None, merged, parse(""))
    assert verdict.reasons == ("1 cell of 2: 1 aborted",)
    assert f"  {CPU_BF16.id}: aborted" in lines(verdict, None, merged)


def test_results_in_which_no_cell_ran_fail(tmp_path: Path) -> None:
    ResultsBuilder({}, skipped={CPU_FP32: ("absent", "absent: nothing here")}).write(tmp_path)
    assert judge(None, merge_runs(read(tmp_path)), parse("")).reasons == ("no cell ran at all",)


def test_missing_coverage_fails_and_is_listed() -> None:
    held = comparison()
    verdict = judge(held, EMPTY, parse(""), ["device cuda:0: none", "dtype float16: none"])
    assert list(lines(verdict, held, EMPTY))[:3] == [
        "gate failed: coverage is missing, 2 values",
        "  device cuda:0: none",
        "  dtype float16: none",
    ]


def test_what_fails_is_told_first_then_the_rest_then_notes() -> None:
    held = comparison(transition("skipped"), transition("slower"), transition("vanished"), notes=("a note",))
    assert list(lines(judge(held, EMPTY, parse("slower")), held, EMPTY)) == [
        "gate failed: 1 slower",
        "FAIL 1 slower:",
        "  llama.cpu.fp32.none.to dtypes: passed -> failed: why",
        "1 skipped:",
        "  1 in llama.cpu.fp32.none.to: why",
        "1 vanished:",
        "  llama.cpu.fp32.none.to dtypes: passed -> failed: why",
        "1 unchanged, 1 skipped, 1 vanished, 1 slower",
        "note: a note",
    ]


def test_of_many_the_first_are_listed_and_the_rest_counted() -> None:
    held = comparison(*(transition("regression", detail=str(number)) for number in range(1234)))
    told = list(lines(judge(held, EMPTY, parse("")), held, EMPTY))
    assert told[0] == "gate failed: 1,234 regressions"
    assert told[2 + MOST_LINES] == "  ... and 1,214 more"
    assert len(told) == MOST_LINES + 4


def test_thousands_with_one_cause_are_one_line() -> None:
    held = comparison(
        *(transition("not-comparable", detail="torch 1 -> 2", cell=cell) for cell in ("a", "b") for _ in range(600)),
        transition("not-comparable", detail="other", failing=True),
    )
    assert list(lines(judge(held, EMPTY, parse("regression")), held, EMPTY))[1:4] == [
        "1,201 not comparable:",
        "  llama.cpu.fp32.none.to dtypes: passed -> failed: other",
        "  1,200 in 2 cells (a, ...): torch 1 -> 2",
    ]


def test_a_target_of_ones_own_is_named() -> None:
    held = comparison(Transition("regression", "c", "", "mine:loader", "x", "y"))
    assert "  c of mine:loader: x -> y" in lines(judge(held, EMPTY, parse("")), held, EMPTY)


def test_conflicts_are_told(tmp_path: Path) -> None:
    ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}, name="one").write(tmp_path)
    ResultsBuilder({CPU_FP32: {"dtypes": "failed"}}, name="two").write(tmp_path)
    merged = merge_runs(read(tmp_path))
    told = list(lines(judge(None, merged, parse("")), None, merged))
    assert told[-2:] == [
        "1 conflict, the worse outcome counts:",
        "  llama.cpu.fp32.none.to dtypes: failed in two, passed in one: one commit on one machine has two outcomes",
    ]
