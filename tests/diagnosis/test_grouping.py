"""Findings by cause: one bug reads as one bug, and two bugs as two."""

from __future__ import annotations

import pytest

from pytest_llmdevice.diagnosis import Finding, Hint
from pytest_llmdevice.diagnosis.grouping import Seen, causes, listed, normalized

DTYPE = Hint("dtype-dropped", "the dtype was dropped", "https://example.org/1")
INDEX = Hint("wrong-index", "no index", "https://example.org/2")


Four = tuple[str, str, str, str]


def seen(cell: str, check: str, where: str, expected: str, actual: str, hint: Hint | None = None) -> Seen:
    return Seen(cell, check, Finding(where, expected, actual, hint), cell.endswith(".sim"))


def test_one_hint_is_one_cause_over_all_checks_cells_and_tensors() -> None:
    found = causes(
        [
            seen("a", "dtypes", "lm_head.weight", "bfloat16", "float32", DTYPE),
            seen("a", "dtypes", "model.norm.weight", "bfloat16", "float32", DTYPE),
            seen("a", "forward", "logits", "bfloat16", "float32", DTYPE),
            seen("b.sim", "dtypes", "lm_head.weight", "float16", "float32", DTYPE),
        ]
    )
    assert listed(found) == [
        "1. 2 cells (1 simulated), dtypes and forward: lm_head.weight: expected bfloat16, found float32 (a)"
    ]
    assert found[0].findings == 4


def test_those_of_most_cells_come_first_and_the_same_cells_are_named_once() -> None:
    found = causes(
        [
            seen("a", "mode", "the model", "eval mode", "training mode"),
            *(seen(cell, "placement", "lm_head.weight", "cuda:1", "cuda:0", INDEX) for cell in ("a.sim", "b.sim")),
            *(seen(cell, "forward", "logits", "cuda:1", "cuda:0") for cell in ("b.sim", "a.sim")),
        ]
    )
    assert listed(found) == [
        "1. 2 simulated cells, placement: lm_head.weight: expected cuda:1, found cuda:0 (a.sim)",
        "2. the cells of 1, forward: logits: expected cuda:1, found cuda:0 (b.sim)",
        "3. 1 cell, mode: the model: expected eval mode, found training mode (a)",
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("forward", "logits", "at most 0.05", "0.31"), ("forward", "logits", "at most 1e-05", "2.5e-3")),
        (("meta", "layers.0.up", "data", "meta"), ("meta", "layers.1.up", "data", "meta")),
        (
            ("generation", "generation", "no exception", "RuntimeError: cuda:1 and cpu"),
            ("forward", "forward, in model.norm", "no exception", "RuntimeError: cuda:0 and cpu"),
        ),
        (("agreement", "prompt 0", "[1, 2, 3]", "[4]"), ("agreement", "prompt 2", "[7]", "[8, 9]")),
        (("loads", "load", "a model", "OSError: no /tmp/a/b"), ("loads", "load", "a model", "OSError: no /home/c/d")),
    ],
)
def test_without_a_hint_what_differs_in_numbers_only_is_one_cause(one: Four, other: Four) -> None:
    assert len(causes([seen("a", *one), seen("b", *other)])) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("dtypes", "logits", "float16", "float32"), ("dtypes", "logits", "bfloat16", "float32")),
        (("dtypes", "logits", "float16", "float32"), ("forward", "logits", "float16", "float32")),
        (("meta", "layers.0.up", "data", "meta"), ("meta", "layers.0.down", "data", "meta")),
        (
            ("generation", "generation", "no exception", "RuntimeError: one"),
            ("generation", "generation", "no exception", "ValueError: two"),
        ),
    ],
)
def test_what_differs_in_words_is_two_causes(one: Four, other: Four) -> None:
    assert len(causes([seen("a", *one), seen("a", *other)])) == 2


def test_nothing_seen_is_no_cause() -> None:
    assert causes([]) == []


def test_names_of_dtypes_and_devices_are_no_quantities() -> None:
    assert (
        normalized("float16 int8 nf4 c10::Half cuda:1 in 3 of 0x7f1a")
        == "float16 int8 nf4 c10::Half cuda:# in # of 0x#"
    )
