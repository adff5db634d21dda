"""Each bug is caught on one of its cells at least, and its correct twin passes on all of them.

`python -m corpus.table` puts every twin to every check.
"""

from __future__ import annotations

import pytest

from corpus.case import Case
from corpus.catalog import CASES
from corpus.fresh import ROUNDS
from corpus.hints import DOCUMENT as HINTS_DOCUMENT
from corpus.judgement import RIGHT, verdict
from corpus.planted import PLANTED, Planted
from corpus.table import DOCUMENT
from pytest_llmdevice.diagnosis.hints import HINTS
from pytest_llmdevice.matrix import vocabulary

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")

by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@by_name
def test_the_bug_is_caught_and_its_twin_passes(case: Case) -> None:
    """The twin is asked no further than the check that caught the bug, nor less than what it wrote itself."""
    if case.needs:
        pytest.importorskip(case.needs)
    caught = next(case.failures(case.buggy()), None)
    twin = case.fixed()
    asked = {"agreement" if hasattr(twin, "generate") else "forward", *([caught[1].check] if caught else [])}
    messages = [
        result.message(cell.id) for cell, result in case.failures(twin, max(asked, key=vocabulary.checks().index))
    ]
    assert not messages, "\n\n".join(messages)
    if case.missed:
        assert caught is None, f"{case.name} is caught now: it is no longer missed"
        pytest.xfail(case.missed)
    assert caught is not None
    wrong = [finding for finding in caught[1].findings if verdict(RIGHT[case.name], finding) == "wrong"]
    assert not wrong, f"the hint is wrong, or corpus/judgement.py is: {wrong[0]}"


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_no_hint_of_a_planted_fault_is_wrong(planted: Planted) -> None:
    """The first check that finds it; `python -m corpus.hints` looks at all."""
    first = next(result for result in planted.results() if result.findings)
    assert not [finding for finding in first.findings if verdict(planted.right, finding) == "wrong"]
    assert any(finding.hint is not None for finding in first.findings)


def test_each_bug_is_judged_with_hints_that_there_are() -> None:
    assert set(RIGHT) == {case.name for case in CASES}
    judged = {name for right in (*RIGHT.values(), *(planted.right for planted in PLANTED)) for name in right.split()}
    assert judged <= {hint.name for hint in HINTS}
    names = [planted.name for planted in PLANTED]
    assert len(names) == len(set(names))


def test_the_page_on_hints_has_each_bug_and_no_wrong_one() -> None:
    rows = [line.split("`")[1] for line in HINTS_DOCUMENT.read_text("utf-8").splitlines() if line.startswith("| `")]
    assert rows == [*(case.name for case in CASES), *(planted.name for planted in PLANTED)], (
        "python -m corpus.hints writes it again"
    )
    assert "| wrong |" not in "".join(HINTS_DOCUMENT.read_text("utf-8").partition("## Bugs")[2:])


def test_names_are_given_once_and_sources_are_public() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
    assert all(case.source.startswith("https://github.com/") for case in CASES)
    assert all(case.cells for case in CASES)


def test_the_document_is_made_of_these_cases() -> None:
    rows = {line.split("`")[1]: line for line in DOCUMENT.read_text("utf-8").splitlines() if line.startswith("| `")}
    assert sorted(rows) == sorted(case.name for case in CASES), "python -m corpus.table, in tests/, writes it again"
    assert not [case.name for case in CASES if case.source not in rows[case.name]]


def test_a_fresh_bug_is_a_case_and_one_that_is_missed_was_missed_at_first() -> None:
    cases = {case.name: case for case in CASES}
    for found in ROUNDS:
        assert set(found.caught) <= set(cases)
        assert set(found.half("open")) | set(found.half("hidden")) == set(found.caught)
        assert abs(len(found.half("open")) - len(found.half("hidden"))) <= 1
        assert not [name for name, check in found.caught.items() if check and cases[name].missed]
        assert {check for check in found.caught.values() if check} <= set(vocabulary.checks())
