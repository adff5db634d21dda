"""What is wrong with a cell, ordered by cause: what explains what, and what stands by itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.matrix.vocabulary import checks as known_checks
from pytest_llmdevice.results import consequences
from pytest_llmdevice.results.causes import causes_of
from pytest_llmdevice.results.consequences import FOLLOWS, KINDS, OF_CHECK
from pytest_llmdevice.results.merged_results import merge_runs
from pytest_llmdevice.results.records import RecordedFinding
from pytest_llmdevice.results.vocabulary import CheckOutcome
from results.builder import CPU_FP32, ResultsBuilder, check

Said = tuple[str, str, str]
"""Hint, where, what was found; the hint `"!"` is an exception without one, `"?"` an answer of the target's, `"."` its
form."""


def causes(folder: Path, said: Mapping[str, Said | CheckOutcome]) -> dict[str, list[str]]:
    """By the check of each cause, the checks that follow from it."""
    made = {}
    for name, one in said.items():
        if isinstance(one, str):
            made[name] = check(CPU_FP32, name, one, findings=(), message=one)
        else:
            hint, where, found = one
            kind = {"!": "exception", "?": "answer", ".": "form"}.get(hint, "")
            finding = RecordedFinding(where=where, expected="x", actual=found, hint=hint.strip("!?."), kind=kind)
            made[name] = check(CPU_FP32, name, "failed", findings=(finding,))
    [view] = merge_runs([ResultsBuilder({CPU_FP32: made}).file(folder)]).cells.values()
    return {cause.root.check: [one.check for one in cause.follows] for cause in causes_of(view)}


WEIGHT: Said = ("weights-never-filled", "model.norm.weight", "0")
LOGITS: Said = ("other-logits", "logits", "0.9")
TOKENS: Said = ("other-choice", "prompt 0, new token 1", "token 3")
ANSWER: Said = ("?", "prompt 0, new token 1", "token 3")
FOUND: list[tuple[dict[str, Said | CheckOutcome], dict[str, list[str]]]] = [
    # Wrong weights explain what the model says, and a mask what the target says.
    ({"values": WEIGHT, "agreement": LOGITS, "reload": ("other-the-second-time", "a.b", "0")},
     {"values": ["agreement", "reload"]}),
    ({"inputs": ("wrong-mask", "attention_mask", "none"), "agreement": TOKENS}, {"inputs": ["agreement"]}),
    # So is it without hints, which are taken back where something else was found before.
    ({"inputs": ("wrong-mask", "attention_mask", "none"), "agreement": ANSWER, "cache": ANSWER},
     {"inputs": ["agreement", "cache"]}),
    ({"generation": ("not-deterministic", "prompt 0", "[3]"), "agreement": ANSWER}, {"generation": ["agreement"]}),
    ({"generation": ("", "prompt 0", "7 tokens"), "agreement": ("row-shifted", "prompt 0", "[3]"), "cache": ANSWER},
     {"generation": ["cache", "agreement"]}),
    # What generating did to the model is seen by one check, and concluded by others.
    ({"agreement": ("model-changed-by-generating", "logits", "0.9"),
      "state": ("model-changed-by-generating", "a.b", "float16")},
     {"state": ["agreement"]}),
    # A wrong mask is handed over by the target: the weights have nothing to do with it, nor has it with the logits.
    ({"values": WEIGHT, "inputs": ("wrong-mask", "attention_mask", "none"), "agreement": LOGITS},
     {"values": ["agreement"], "inputs": []}),
    ({"inputs": ("wrong-mask", "attention_mask", "none"), "padding": ("masked-row", "logits", "nan")},
     {"inputs": [], "padding": []}),
    # What is about the same tensor is one mistake; what is about others is not.
    ({"placement": ("left-behind", "lm_head.weight", "cpu"),
      "dtypes": ("grown-embedding", "lm_head.weight", "float32")},
     {"placement": ["dtypes"]}),
    ({"placement": ("left-behind", "model.norm.weight", "cpu"),
      "dtypes": ("created-late", "lm_head.weight", "float32")},
     {"placement": [], "dtypes": []}),
    ({"placement": ("wrong-index", "a.{0,1}.b.weight", "cuda:0"),
      "dtypes": ("dtype-dropped", "a.1.b.weight", "float32")},
     {"placement": [], "dtypes": []}),
    ({"placement": ("left-behind", "a.{0..3}.b.weight", "cpu"), "values": ("weights-changed", "a.2.b.weight", "1")},
     {"placement": ["values"]}),
    # An exception follows from what its text is about.
    ({"dtypes": ("created-late", "lm_head.weight", "float32"), "forward": ("two-dtypes", "forward", "raised")},
     {"dtypes": ["forward"]}),
    ({"dtypes": ("created-late", "lm_head.weight", "float32"), "forward": ("two-devices", "forward", "raised")},
     {"dtypes": [], "forward": []}),
    ({"values": WEIGHT, "generation": ("!", "generation", "raised in the target")}, {"values": [], "generation": []}),
    ({"values": WEIGHT, "sampling": ("!", "sampling", "raised by nan")}, {"values": ["sampling"]}),
    ({"dtypes": ("created-late", "lm_head.weight", "float32"), "forward": ("out-of-memory", "forward", "raised")},
     {"dtypes": [], "forward": []}),
    # Without the generation there is nothing to look at.
    ({"generation": ("!", "generation", "raised"), "inputs": "hollow"}, {"generation": ["inputs"]}),
    # Of two that say something of the model, the one that says more.
    ({"agreement": LOGITS, "prefix": ("mask-error", "logits", "1.2"), "save": ("saved-values", "logits", "1")},
     {"prefix": ["agreement", "save"]}),
    ({"agreement": LOGITS, "cache": ("cache-dtype", "layers[0].keys", "float16")}, {"agreement": [], "cache": []}),
    # What was left in the process explains a second load, and enters no arithmetic.
    ({"state": ("environment-changed", "X", "0"), "agreement": LOGITS}, {"state": [], "agreement": []}),
    ({"state": ("model-changed-by-generating", "lm_head.weight", "float16"), "agreement": LOGITS},
     {"state": ["agreement"]}),
    # The form of an answer is nothing that weights explain.
    ({"values": WEIGHT, "generation": (".", "what generate returned", "text")}, {"values": [], "generation": []}),
    ({"values": WEIGHT, "agreement": ("rows-in-another-order", "prompt 0", "x")}, {"values": [], "agreement": []}),
    # Tests of one's own, and what passed unexpectedly, stand by themselves.
    ({"values": WEIGHT, "test_own::test_it": ("", "mine", "y")}, {"values": [], "test_own::test_it": []}),
    ({"values": WEIGHT, "tied": "xpass"}, {"values": [], "tied": []}),
    # What the run, the worker or the device did not live to see is one problem, beside what was seen.
    ({"dtypes": ("created-late", "lm_head.weight", "float32"), "forward": "aborted", "inputs": "aborted"},
     {"dtypes": [], "forward": ["inputs"]}),
    ({"loads": "error", "meta": "error", "test_own::test_it": "error"}, {"loads": ["meta", "test_own::test_it"]}),
]  # fmt: skip


@pytest.mark.parametrize(("said", "expected"), FOUND, ids=map(str, range(len(FOUND))))
def test_causes_come_first_and_what_follows_is_folded(
    said: dict[str, Said | CheckOutcome], expected: dict[str, list[str]], tmp_path: Path
) -> None:
    assert causes(tmp_path, said) == expected


def test_no_complaint_is_lost(tmp_path: Path) -> None:
    said: dict[str, Said | CheckOutcome] = dict.fromkeys(known_checks(), ("", "somewhere", "y"))
    found = causes(tmp_path, said)
    assert sorted([*found, *(name for follows in found.values() for name in follows)]) == sorted(said)


def test_every_check_has_a_kind_and_every_hint_of_a_table_is_registered() -> None:
    assert set(OF_CHECK) == set(known_checks())
    assert set(FOLLOWS) <= set(KINDS)
    tables = (consequences.OF_HINT, consequences.ONLY_AFTER, consequences.EXACT, consequences.OF_CAUSE,
              consequences.OF_TENSORS, consequences.ONE_TENSOR, consequences.CASTS, consequences.ROUNDED,
              consequences.WHOLE, consequences.ALIKE)  # fmt: skip
    named = {hint for table in tables for hint in table} | {hint for pair in consequences.PAIRS for hint in pair}
    assert named <= set(current().names("hint"))
    assert all(set(of) <= set(known_checks()) for of in consequences.ONLY_AFTER.values())
