"""What a check says: passed, hollow, or a report that begins with the first finding."""

from __future__ import annotations

import pytest

from pytest_llmdevice.checks import Finding, Result
from pytest_llmdevice.diagnosis import Hint

CAUSE = Hint("dropped", "the dtype was dropped", "https://example.org/1")
ONE = Finding("lm_head.weight", "bfloat16", "float32", CAUSE)
TWO = Finding("model.norm.weight", "bfloat16", "float32", CAUSE)


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
        "hint: the dtype was dropped (https://example.org/1)",
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
        "hint: the dtype was dropped (https://example.org/1)",
    ]


def test_a_long_table_is_cut_with_the_number_of_rows_that_are_left_out() -> None:
    lines = Result("dtypes", tuple(Finding(str(number), "a", "b") for number in range(40))).message().splitlines()
    assert lines[0].endswith("(and 39 more)")
    assert lines[-1] == "  ... and 28 more"
    assert len(lines) == 1 + 1 + 2 + 12 + 1


def test_repeated_layers_are_one_row() -> None:
    layers = [Finding(f"model.layers.{n}.norm.weight", "bfloat16", "float32", CAUSE) for n in (0, 1, 2, 5)]
    message = Result("dtypes", (ONE, *layers)).message()
    assert message.splitlines()[0].endswith("(and 4 more)")
    assert "  model.layers.{0..2,5}.norm.weight  bfloat16  float32\n" in message


def test_rows_are_put_together_by_cause_each_with_its_hint_and_a_share_of_the_table() -> None:
    other = Hint("kept", "kept in float32", "https://example.org/2")
    many = [Finding(f"part{name}.weight", "a", "b", CAUSE) for name in "abcdefgh"]
    odd = Finding("head", "a", "c", other)
    plain = Finding("tail", "a", "d")
    lines = Result("dtypes", (many[0], odd, *many[1:], plain)).message().splitlines()
    wheres = [line.split()[0] for line in lines[4:]]
    assert wheres == [*(finding.where for finding in many[:4]), "...", "hint:", "head", "hint:", "tail"]
    assert lines[8] == "  ... and 4 more"


def test_a_long_text_does_not_widen_the_table() -> None:
    long = Finding("generation", "no exception", "RuntimeError: " + "very " * 100)
    lines = Result("generation", (long, ONE)).message().splitlines()
    assert "very " * 90 in lines[0]
    assert max(map(len, lines[1:])) < 160


def test_findings_too_long_for_a_table_are_sentences() -> None:
    long = Finding("prompt 0", "token 109 " * 7, "token 104 " * 9, CAUSE)
    assert Result("agreement", (long, ONE)).message().splitlines()[2:] == [
        f"  prompt 0: expected {long.expected.strip()}, found {long.actual.strip()}",
        "  lm_head.weight: expected bfloat16, found float32",
        "hint: the dtype was dropped (https://example.org/1)",
    ]


def test_the_origin_comes_before_the_table() -> None:
    lines = Result("agreement", (ONE, TWO), origin="first differs at model.norm").message().splitlines()
    assert lines[1] == "origin: first differs at model.norm"


def test_the_failure_carries_the_result() -> None:
    result = Result("dtypes", (ONE,))
    with pytest.raises(AssertionError) as caught:
        result.require()
    assert vars(caught.value)["llm_result"] is result


def test_the_failure_is_the_message() -> None:
    result = Result("dtypes", (ONE,))
    with pytest.raises(AssertionError) as caught:
        result.require("a.cell")
    assert str(caught.value) == result.message("a.cell")


def test_the_message_of_a_check_that_passed_says_so() -> None:
    assert Result("dtypes", (), {"tensors": 3}).message("llama.cpu.fp32.none.to") == (
        "dtypes of llama.cpu.fp32.none.to: passed"
    )
