"""What a check says: passed, hollow, or a report that begins with the first finding."""

from __future__ import annotations

import pytest

from pytest_llmdevice.checks import Finding, Result

ONE = Finding("lm_head.weight", "bfloat16", "float32", "the dtype was dropped")
TWO = Finding("model.norm.weight", "bfloat16", "float32", "the dtype was dropped")


@pytest.mark.parametrize("evidence", [{"tensors": 1}, {"share": 0.5}, {"layers": 0, "tensors": 3}])
def test_a_check_that_looked_and_found_nothing_passes(evidence: dict[str, int | float | str]) -> None:
    result = Result("meta", evidence=evidence)
    assert result.passed
    assert not result.hollow
    result.require()


@pytest.mark.parametrize(
    "evidence",
    [{}, {"tensors": 0}, {"tensors": 0, "share": 0.0}, {"weights": 0, "share of elements": "none", "rate": "0%"}],
)
def test_a_check_that_looked_at_nothing_is_hollow_and_never_passes(evidence: dict[str, int | float | str]) -> None:
    result = Result("quantization", evidence=evidence)
    assert result.hollow
    assert not result.passed
    with pytest.raises(AssertionError, match=r"^quantization of a\.cell: hollow: there was nothing to check$"):
        result.require("a.cell")


@pytest.mark.parametrize("evidence", [{}, {"tensors": 3}])
def test_a_finding_counts_whatever_was_looked_at(evidence: dict[str, int | float | str]) -> None:
    result = Result("dtypes", (ONE,), evidence)
    assert (result.passed, result.hollow) == (False, False)


def test_one_finding_is_told_in_a_line_with_hint_and_evidence() -> None:
    assert Result("dtypes", (ONE,), {"float32": 1, "bfloat16": 20}).message("a.cell").splitlines() == [
        "dtypes of a.cell: lm_head.weight: expected bfloat16, found float32",
        "hint: the dtype was dropped",
        "looked at: float32 1, bfloat16 20",
    ]


def test_several_findings_are_a_table_and_a_hint_is_given_once() -> None:
    assert Result("dtypes", (ONE, TWO)).message().splitlines() == [
        "dtypes: lm_head.weight: expected bfloat16, found float32 (and 1 more)",
        "",
        "  where              expected  found",
        "  -----------------  --------  -------",
        "  lm_head.weight     bfloat16  float32",
        "  model.norm.weight  bfloat16  float32",
        "hint: the dtype was dropped",
    ]


def test_a_long_table_is_cut_with_the_number_of_rows_that_are_left_out() -> None:
    lines = Result("dtypes", tuple(Finding(str(number), "a", "b") for number in range(40))).message().splitlines()
    assert lines[0].endswith("(and 39 more)")
    assert lines[-1] == "  ... and 28 more"
    assert len(lines) == 1 + 1 + 2 + 12 + 1


def test_the_failure_is_the_message() -> None:
    result = Result("dtypes", (ONE,))
    with pytest.raises(AssertionError) as caught:
        result.require("a.cell")
    assert str(caught.value) == result.message("a.cell")
