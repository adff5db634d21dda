"""A setting that forbids or punishes what was said before is seen where no prompt of the suite shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from checks.unusual import Prompts, Target

from pytest_llmdevice import Cell
from pytest_llmdevice.checks.said_again import SAID_AGAIN, said_again_findings
from pytest_llmdevice.diagnosis.hints.generation import SETTINGS
from pytest_llmdevice.inference.generation import generate, inputs_for

Rows = list[list[int]]
PROMPT = [105, 110, 32, 97, 98, 99]
ANSWER = [100, 101]

MODELS = ("llama", "t5", "mamba")


def with_options(**options: Any) -> Target:
    def generated(model: Any, prompts: Prompts, count: int) -> Rows:
        inputs = inputs_for(model, prompts)
        output = model.generate(**inputs, do_sample=False, max_new_tokens=count, **options)
        start = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        return [row.tolist() for row in output[:, start:]]

    return Target(generated)


def own_loop(change: Callable[[torch.Tensor, list[int]], None]) -> Target:
    """A loop of the target's own, which changes logits in view of the new tokens so far."""

    def one(model: Any, prompt: list[int], count: int) -> list[int]:
        new: list[int] = []
        for _ in range(count):
            logits = model(**inputs_for(model, [[*prompt, *new]])).logits[0, -1].detach().float()
            change(logits, new)
            new.append(int(logits.argmax()))
        return new

    return Target(lambda model, prompts, count: [one(model, list(prompt), count) for prompt in prompts])


def counted(logits: torch.Tensor, new: list[int]) -> None:
    for token in new:
        logits[token] -= 0.3


def never_twice_in_a_row(logits: torch.Tensor, new: list[int]) -> None:
    if new:
        logits[new[-1]] = -torch.inf


WRONG = {
    "no two alike": with_options(no_repeat_ngram_size=2),
    "no six alike": with_options(no_repeat_ngram_size=6),
    "a small penalty": with_options(repetition_penalty=1.05),
    "a strong penalty": with_options(repetition_penalty=2.0),
    "a forbidden token": with_options(suppress_tokens=[ANSWER[0]]),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_setting_that_nobody_asked_for_is_found(load: Callable[[Cell], Any], name: str, wrong: Target) -> None:
    findings, _ = said_again_findings(wrong, load(Cell(name, "cpu", "float32")), PROMPT, ANSWER, ())
    (found,) = findings
    assert found.expected.startswith("token 100,")
    assert found.hint is SETTINGS


@pytest.mark.parametrize("change", [counted, never_twice_in_a_row])
def test_a_loop_of_the_target_s_own_is_held_to_the_same(load: Callable[[Cell], Any], change: Any) -> None:
    findings, _ = said_again_findings(own_loop(change), load(Cell("llama", "cpu", "float32")), PROMPT, ANSWER, ())
    assert [found.hint for found in findings] == [SETTINGS]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", MODELS)
def test_what_takes_the_model_s_choice_each_time_is_right(load: Callable[[Cell], Any], name: str, dtype: str) -> None:
    model = load(Cell(name, "cpu", dtype))
    for right in (Target(generate), with_options(min_new_tokens=4)):
        assert said_again_findings(right, model, PROMPT, ANSWER, ()) == ([], {SAID_AGAIN: 7})


@contextmanager
def set_in(model: Any, **settings: Any) -> Iterator[None]:
    before = {name: getattr(model.generation_config, name) for name in settings}
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(model.generation_config, name, value)


def test_what_the_checkpoint_asks_for_itself_is_no_fault_of_the_target(load: Callable[[Cell], Any]) -> None:
    model = load(Cell("llama", "cpu", "float32"))
    with set_in(model, repetition_penalty=1.3, no_repeat_ngram_size=2):
        findings, evidence = said_again_findings(with_options(), model, PROMPT, ANSWER, ())
    assert findings == []
    assert evidence == {SAID_AGAIN: "not tried: the checkpoint's own settings forbid it"}


def test_a_target_whose_passes_are_not_the_model_s_is_said_not_to_be_tried(load: Callable[[Cell], Any]) -> None:
    remembered = Target(lambda _, prompts, count: [[7] * count for _ in prompts])
    findings, evidence = said_again_findings(remembered, load(Cell("llama", "cpu", "float32")), PROMPT, ANSWER, ())
    assert findings == []
    assert evidence == {SAID_AGAIN: "not tried: the model could not be made to say it"}


def test_only_ends_and_padding_leave_nothing_to_say(load: Callable[[Cell], Any]) -> None:
    model = load(Cell("llama", "cpu", "float32"))
    assert said_again_findings(Target(generate), model, PROMPT, ANSWER, ANSWER) == ([], {})
