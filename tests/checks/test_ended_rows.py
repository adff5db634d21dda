"""Rows end at each of several end tokens, wherever it stands, and the row that ends is looked at too."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_llmdevice import BuiltinTarget, Cell
from pytest_llmdevice.checks.ended_rows import NOT_READ, ended_findings
from pytest_llmdevice.diagnosis.hints.generation import END_DROPPED, ENDS_MISSED, GOES_ON
from pytest_llmdevice.inference.generation import generate_with, inputs_for
from pytest_llmdevice.inference.logits import forward_logits

Load = Callable[[Cell], Any]
Rows = list[list[int]]

CELL = Cell("llama", "cpu", "float32")
LENGTH = 8
PAD = 256

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")


def greedy(model: Any, prompts: Rows, new: int) -> Rows:
    """The model's own choices, whatever ends a row."""
    rows = []
    for prompt in prompts:
        text = list(prompt)
        for _ in range(new):
            text.append(int(forward_logits(model, inputs_for(model, [text]))[0, -1].argmax()))
        rows.append(text[len(prompt) :])
    return rows


def ends(model: Any) -> list[int]:
    end = model.generation_config.eos_token_id
    return list(end) if isinstance(end, list) else [end]


def stopping(
    which: Callable[[list[int]], list[int]] = list, *, block: int = 1, fill: int | None = None, keep: bool = True
) -> Any:
    """A generation that ends rows at the end tokens that `which` chooses, looking at the last of each `block`."""

    def cut(row: list[int], known: list[int]) -> list[int]:
        at = next((at for at, token in enumerate(row) if token in known and (at + 1) % block == 0), None)
        if at is None:
            return row
        short = row[: at + keep]
        return short if fill is None else short + [fill] * (len(row) - len(short))

    def way(model: Any, prompts: Rows, new: int) -> Rows:
        return [cut(row, which(ends(model))) for row in greedy(model, prompts, new)]

    return way


def going_on(model: Any, prompts: Rows, new: int) -> Rows:
    """Rows that have ended are read on until all have."""
    rows = greedy(model, prompts, new)
    known = ends(model)
    lengths = [next((at + 1 for at, token in enumerate(row) if token in known), new) for row in rows]
    return [row[: max(lengths)] for row in rows]


def number_only(model: Any, prompts: Rows, new: int) -> Rows:
    end = model.generation_config.eos_token_id
    return [row[: row.index(end) + 1] if end in row else row for row in greedy(model, prompts, new)]


def tried(way: Any, model: Any, prompts: Rows) -> tuple[list[Any], dict[str, Any]]:
    target = SimpleNamespace(generate=way)
    before = greedy(model, prompts, LENGTH)
    findings, evidence = ended_findings(target, model, prompts, before)
    return list(findings), evidence


RIGHT = {
    "short": stopping(),
    "padded": stopping(fill=PAD),
    "filled with what a loss ignores": stopping(fill=-100),
    "filled with zeros": stopping(fill=0),
}


@pytest.mark.parametrize("way", RIGHT.values(), ids=RIGHT)
def test_rows_that_end_at_each_of_several_end_tokens_are_right(way: Any, loaded: Load, prompts: Rows) -> None:
    findings, evidence = tried(way, loaded(CELL), prompts)
    assert findings == []
    assert evidence == {"rows beside one that ends": 2}


WRONG = {
    "only the first": (stopping(lambda known: known[:1]), ENDS_MISSED),
    "all but the first": (stopping(lambda known: known[1:] or known), ENDS_MISSED),
    "only at the end of a block of two": (stopping(block=2), ENDS_MISSED),
    "the end token is removed": (stopping(keep=False), END_DROPPED),
    "rows that have ended go on": (going_on, GOES_ON),
}


@pytest.mark.parametrize(("way", "hint"), WRONG.values(), ids=WRONG)
def test_rows_that_end_at_some_of_them_or_otherwise_are_found(way: Any, hint: Any, loaded: Load, prompts: Rows) -> None:
    (finding,) = tried(way, loaded(CELL), prompts)[0]
    assert finding.hint == hint


@pytest.mark.parametrize("which", [lambda known: known[:0], lambda _: [1]], ids=["at none", "at one of its own"])
def test_a_target_that_does_not_read_the_configuration_says_so(which: Any, loaded: Load, prompts: Rows) -> None:
    findings, evidence = tried(stopping(which), loaded(CELL), prompts)
    assert findings == []
    assert evidence == {NOT_READ: "not read by generate"}


def test_a_target_that_knows_no_list_is_wrong_where_the_model_has_one(
    load: Load, prompts: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(CELL)
    findings, evidence = tried(number_only, model, prompts)
    assert findings == []
    assert evidence[NOT_READ] == "as a number, not as a list"
    monkeypatch.setattr(model.generation_config, "eos_token_id", [model.generation_config.eos_token_id, 7])
    (finding,) = tried(number_only, model, prompts)[0]
    assert finding.hint == ENDS_MISSED
    assert model.generation_config.eos_token_id[1] == 7


def test_the_built_in_generation_which_forbids_ends_is_not_asked(loaded: Load, prompts: Rows) -> None:
    model = loaded(CELL)
    first = generate_with(BuiltinTarget(), model, prompts, LENGTH)
    assert ended_findings(BuiltinTarget(), model, prompts, first) == ([], {})
