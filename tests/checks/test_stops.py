"""A target may end rows at tokens of its own, and fill them as it likes; a row that is wrong did not end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from checks.unusual import Prompts, Target

from pytest_llmdevice import Cell, examine, zoo
from pytest_llmdevice.checks.declared_ends import declared_findings
from pytest_llmdevice.checks.stops import heeds, own_stops
from pytest_llmdevice.checks.tolerance import generation_tolerance
from pytest_llmdevice.diagnosis.hints.generation import ENDS_MISSED
from pytest_llmdevice.inference.generation import generate, inputs_for
from pytest_llmdevice.zoo import cache_directory

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")

CELL = Cell("llama", "cpu", "float32")
WANTED = 8

Rows = list[list[int]]
Cut = Callable[[list[int], int], list[int]]


@pytest.fixture(scope="module")
def model(load: Callable[[Cell], Any]) -> Any:
    return load(CELL)


@pytest.fixture(scope="module")
def stop(model: Any, prompts: Rows) -> int:
    """A token that one row has in its middle, and that no prompt ends with."""
    row = max(generate(model, prompts, WANTED), key=lambda each: len(set(each)))
    return next(token for token in row[1:-2] if row.count(token) == 1)


def shortened(row: list[int], stop: int) -> list[int]:
    return row[: row.index(stop) + 1] if stop in row else row


def filled_with(filling: int | None) -> Cut:
    def fill(row: list[int], stop: int) -> list[int]:
        short = shortened(row, stop)
        return short + [stop if filling is None else filling] * (len(row) - len(short))

    return fill


def stopping(stop: int, cut: Cut) -> Target:
    return Target(lambda model, prompts, count: [cut(row, stop) for row in generate(model, prompts, count)])


RIGHT = {
    "short": shortened,
    "filled with padding": filled_with(256),
    "filled with another token": filled_with(7),
    "filled with itself": filled_with(None),
}


@pytest.mark.parametrize("cut", RIGHT.values(), ids=RIGHT)
def test_a_row_that_ends_at_a_token_of_the_target_s_own_is_right(cut: Cut, stop: int) -> None:
    target = stopping(stop, cut)
    folder = zoo.checkpoint("llama")
    for result in examine(target, folder, CELL, folder=cache_directory() / "references"):
        assert result.passed, result.message(CELL.id)


def last_two_lost(model: Any, prompts: Prompts, count: int) -> Rows:
    return generate(model, prompts, count - 2)


def garbage_after_the_first(model: Any, prompts: Prompts, count: int) -> Rows:
    return [[row[0], *[7] * (count - 1)] for row in generate(model, prompts, count)]


def garbage_after_the_third(model: Any, prompts: Prompts, count: int) -> Rows:
    return [[*row[:3], *[7] * (len(row) - 3)] for row in generate(model, prompts, count)]


def cut_at_a_length(model: Any, prompts: Prompts, count: int) -> Rows:
    """As if all rows had one length, prompt included."""
    longest = max(map(len, prompts))
    rows = generate(model, prompts, count)
    return [row[: max(1, count - (longest - len(prompt)))] for prompt, row in zip(prompts, rows, strict=True)]


def nothing_but_the_first(model: Any, prompts: Prompts, count: int) -> Rows:
    return [row[:1] for row in generate(model, prompts, count)]


WRONG = [last_two_lost, garbage_after_the_first, garbage_after_the_third, cut_at_a_length, nothing_but_the_first]


@pytest.mark.parametrize("function", WRONG)
def test_a_row_that_is_short_or_wrong_has_not_ended(function: Any, model: Any, prompts: Rows) -> None:
    target = Target(function)
    rows = function(model, prompts, WANTED)
    assert own_stops(target, model, prompts, rows, WANTED, generation_tolerance(CELL)) == frozenset()
    found = {result.check for result in examine(target, zoo.checkpoint("llama"), CELL) if result.findings}
    assert found & {"generation", "agreement"}


def test_a_token_behind_which_another_row_goes_on_ends_none(model: Any, prompts: Rows, stop: int) -> None:
    rows = generate(model, prompts, WANTED)
    short = [shortened(row, stop) for row in rows]
    again = [*short[:-1], [stop, *rows[-1][:-1]]]
    target = stopping(stop, shortened)
    assert own_stops(target, model, prompts, short, WANTED, generation_tolerance(CELL)) == {stop}
    assert own_stops(target, model, prompts, again, WANTED, generation_tolerance(CELL)) == frozenset()


def ending_at(ends: Callable[[Any], list[int]]) -> Target:
    def answer(model: Any, prompts: Prompts, count: int) -> Rows:
        given = [inputs_for(model, [prompt]) for prompt in prompts]
        stops = ends(model)
        outputs = [
            model.generate(**one, max_new_tokens=count, do_sample=False, eos_token_id=stops, pad_token_id=256)
            for one in given
        ]
        return [out[0, one["input_ids"].shape[1] :].tolist() for out, one in zip(outputs, given, strict=True)]

    return Target(answer)


def test_a_token_of_one_s_own_is_right_beside_the_model_s_end_and_wrong_instead_of_it(
    model: Any, prompts: Rows, stop: int
) -> None:
    end = model.generation_config.eos_token_id
    beside, instead = ending_at(lambda _: [end, stop]), ending_at(lambda _: [stop])
    tolerance = generation_tolerance(CELL)
    assert heeds(beside, model, prompts[0], end, WANTED, tolerance)
    assert not heeds(instead, model, prompts[0], end, WANTED, tolerance)
    for target, found in ((beside, {stop}), (instead, set())):
        rows = target.generate(model, prompts, WANTED)
        assert own_stops(target, model, prompts, rows, WANTED, tolerance) == found


def cached_loop(model: Any, prompts: Prompts, count: int, ends: set[int]) -> Rows:
    """A loop of one's own over single prompts, with a cache."""
    rows = []
    for prompt in prompts:
        row: list[int] = []
        feed, cache = list(prompt), None
        while len(row) < count:
            with torch.no_grad():
                output = model(torch.tensor([feed]), past_key_values=cache, use_cache=True)
            cache, feed = output.past_key_values, [int(output.logits[0, -1].argmax())]
            row += feed
            if feed[0] in ends:
                break
        rows.append(row)
    return rows


@pytest.mark.parametrize(
    ("ends", "found"),
    [({256, 9}, 0), ({256, 9, 258}, 0), ({9}, 1), ({256}, 1), ({258}, 1), (set(), 0)],
    ids=["all", "the tokenizer's too", "the last", "the first", "only the tokenizer's", "none"],
)
def test_of_several_end_tokens_of_the_files_each_ends_a_row(
    ends: set[int],
    found: int,
    load: Callable[[Cell], Any],
    prompts: Rows,
    checkpoint: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = load(CELL)
    monkeypatch.setattr(model.generation_config, "eos_token_id", [256, 9])
    folder = checkpoint("llama")
    target = Target(lambda model, prompts, count: cached_loop(model, prompts, count, ends))
    findings, _ = declared_findings(target, model, folder, prompts[0], WANTED, generation_tolerance(CELL))
    assert [finding.hint for finding in findings] == [ENDS_MISSED] * found


def test_one_end_token_that_is_the_same_everywhere_costs_no_generation(
    model: Any, prompts: Rows, checkpoint: Callable[[str], str]
) -> None:
    def raising(*_: Any) -> Rows:
        raise AssertionError

    arguments = (model, checkpoint("llama"), prompts[0], WANTED, generation_tolerance(CELL))
    assert declared_findings(Target(raising), *arguments) == ([], {})
