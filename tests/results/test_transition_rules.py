"""Every pair of outcomes has a rule, and the rules hold together."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import get_args

import pytest

from pytest_llmdevice.results.compare import compare
from pytest_llmdevice.results.merged_results import merge_runs
from pytest_llmdevice.results.store import read
from pytest_llmdevice.results.transition_rules import AFTER, TRANSITIONS
from pytest_llmdevice.results.transitions import Name
from pytest_llmdevice.results.update import FORCE_WORDS, update
from pytest_llmdevice.results.vocabulary import BAD, CheckOutcome
from results.builder import CPU_FP32, ResultsBuilder

BEFORE: tuple[CheckOutcome, ...] = ("passed", "failed", "error", "hollow", "xfail", "xpass", "aborted", "upstream")

EXPECTED: dict[Name, str] = {
    "regression": """
        passed->failed passed->error passed->xpass xfail->failed xfail->error xpass->failed xpass->error
        hollow->failed hollow->error upstream->failed upstream->error upstream->xpass
    """,
    "aborted": """
        upstream->aborted passed->aborted xfail->aborted xpass->aborted hollow->aborted failed->aborted error->aborted
    """,
    "hollow": """
        upstream->hollow passed->hollow xfail->hollow xpass->hollow failed->hollow error->hollow aborted->hollow
    """,
    "skipped": """
        upstream->skipped
        passed->skipped xfail->skipped xpass->skipped hollow->skipped failed->skipped error->skipped aborted->skipped
    """,
    "expected": "upstream->xfail passed->xfail xpass->xfail hollow->xfail failed->xfail error->xfail aborted->xfail",
    "upstream": """
        passed->upstream xfail->upstream xpass->upstream hollow->upstream failed->upstream error->upstream
        aborted->upstream
    """,
    "fixed": """
        upstream->passed xfail->passed xpass->passed hollow->passed failed->passed error->passed aborted->passed
        xfail->xpass hollow->xpass failed->xpass error->xpass aborted->xpass
    """,
}
"""Written down a second time, the other way round."""

DOCUMENT = Path(__file__).parents[2] / "docs" / "results.md"

PAIRS = list(product(BEFORE, AFTER))

NAMED = {pair: name for name, pairs in EXPECTED.items() for pair in pairs.split()}


def test_every_pair_has_a_rule() -> None:
    assert set(AFTER) == set(get_args(CheckOutcome))
    assert set(TRANSITIONS) == set(BEFORE)
    assert all(set(row) == set(AFTER) for row in TRANSITIONS.values())


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_each_pair_is_named_as_it_is_written_down(before: CheckOutcome, after: CheckOutcome) -> None:
    assert TRANSITIONS[before][after] == NAMED.get(f"{before}->{after}")


def test_the_table_in_the_documents_is_that_of_the_code() -> None:
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    cells = {tuple(part.strip(" `") for part in line.strip("|").split("|")) for line in rows}
    for before, row in TRANSITIONS.items():
        assert (before, *(row[after] or "=" for after in AFTER)) in cells


@pytest.mark.parametrize("outcome", BEFORE)
def test_an_outcome_that_stays_is_unchanged(outcome: CheckOutcome) -> None:
    assert TRANSITIONS[outcome][outcome] is None


@pytest.mark.parametrize(("before", "after"), [pair for pair in PAIRS if pair[0] not in BAD and pair[1] in BAD])
def test_what_was_good_and_is_bad_never_goes_unnamed(before: CheckOutcome, after: CheckOutcome) -> None:
    assert TRANSITIONS[before][after] in {"regression", "aborted", "hollow", "fixed"}


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_a_comparison_follows_the_table(tmp_path: Path, before: CheckOutcome, after: CheckOutcome) -> None:
    def made(outcome: CheckOutcome, folder: str) -> Path:
        # A second check, so that the cell itself runs whatever becomes of the first.
        ResultsBuilder({CPU_FP32: {"dtypes": outcome, "loads": "passed"}}).write(tmp_path / folder)
        return tmp_path / folder

    path = tmp_path / "baseline.jsonl"
    baseline = update(merge_runs(read(made(before, "a"))), path, force=FORCE_WORDS, environment={}, today="2026-11-25")
    comparison = compare(merge_runs(read(made(after, "b"))), baseline)
    found = [each for each in comparison.transitions if each.check == "dtypes"]
    name = TRANSITIONS[before][after]
    assert [each.name for each in found] == ([name] if name else [])
    assert comparison.unchanged == (1 if name else 2)
    for each in found:
        assert (each.before, each.after) == (before, after)
        assert each.failing == (after in BAD and before not in BAD)
