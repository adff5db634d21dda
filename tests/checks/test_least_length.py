"""A least length that nobody asked for is found by the step at which a target takes the end that a model says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from checks.test_said_again import set_in, with_options
from checks.unusual import Prompts, Target

from pytest_llmdevice import Cell
from pytest_llmdevice.checks.least_length import LEAST, least_length_findings
from pytest_llmdevice.diagnosis.hints.generation import SETTINGS
from pytest_llmdevice.inference.generation import generate, inputs_for
from pytest_llmdevice.loading.target import BuiltinTarget

PROMPT = [105, 110, 32, 97, 98, 99]
MODELS = ("llama", "t5", "mamba")


def at_least(least: Callable[[int], int]) -> Target:
    """Forbids ends for as many tokens as `least` says for the number that is asked for."""

    def generated(model: Any, prompts: Prompts, count: int) -> list[list[int]]:
        made: Any = with_options(min_new_tokens=least(count))
        return list(made.generate(model, prompts, count))

    return Target(generated)


def loop(model: Any, prompts: Prompts, count: int) -> list[list[int]]:
    """A loop of the target's own that ends rows nowhere."""
    rows = []
    for prompt in prompts:
        new: list[int] = []
        while len(new) < count:
            logits = model(**inputs_for(model, [[*prompt, *new]])).logits[0, -1]
            new.append(int(logits.argmax()))
        rows.append(new)
    return rows


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("least", [3, 50, 128])
def test_a_least_length_that_nobody_asked_for_is_found(load: Callable[[Cell], Any], name: str, least: int) -> None:
    model = load(Cell(name, "cpu", "float32"))
    findings, evidence = least_length_findings(at_least(lambda count: min(least, count)), model, PROMPT)
    (found,) = findings
    assert f"behind {least} other tokens" in found.actual
    assert found.hint is SETTINGS
    assert evidence == {LEAST: least + 1}


def test_a_share_of_what_was_asked_for_is_found_too(load: Callable[[Cell], Any]) -> None:
    model = load(Cell("llama", "cpu", "bfloat16"))
    findings, _ = least_length_findings(at_least(lambda count: count // 2), model, PROMPT)
    assert [found.hint for found in findings] == [SETTINGS]


RIGHT = {
    "nothing is forbidden": (with_options(), 1),
    "no empty answers": (at_least(lambda _: 1), 2),
    "ends are forbidden throughout": (at_least(lambda count: count), "none in 130"),
    "a loop that ends nowhere": (Target(loop), 1),
    "all but the last token": (at_least(lambda count: count - 1), 8),
    "the built-in generation": (Target(generate), "none in 130"),
}


@pytest.mark.parametrize(("target", "said"), RIGHT.values(), ids=RIGHT)
def test_a_target_that_forbids_ends_throughout_or_nowhere_is_right(
    load: Callable[[Cell], Any], target: Target, said: int | str
) -> None:
    model = load(Cell("llama", "cpu", "float32"))
    assert least_length_findings(target, model, PROMPT) == ([], {LEAST: said})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("llama", {"min_new_tokens": 5}),
        ("llama", {"min_length": len(PROMPT) + 5}),
        ("t5", {"min_length": 6}),
    ],
)
def test_what_the_checkpoint_asks_for_itself_is_no_fault_of_the_target(
    load: Callable[[Cell], Any], name: str, settings: dict[str, int]
) -> None:
    model = load(Cell(name, "cpu", "float32"))
    with set_in(model, **settings):
        assert least_length_findings(with_options(), model, PROMPT) == ([], {LEAST: 6})


def test_what_cannot_be_made_to_say_an_end_is_said_not_to_be_tried(load: Callable[[Cell], Any]) -> None:
    model = load(Cell("llama", "cpu", "float32"))
    remembered = Target(lambda _, prompts, count: [[7] * count for _ in prompts])
    findings, evidence = least_length_findings(remembered, model, PROMPT)
    assert findings == []
    assert evidence == {LEAST: "not tried: the model could not be made to say one"}
    assert least_length_findings(BuiltinTarget(), model, PROMPT) == ([], {})
