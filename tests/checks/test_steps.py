"""What a target's own loop chooses from is what one forward pass says."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pytest_llmdevice import Cell, zoo
from pytest_llmdevice.checks import check_cache
from pytest_llmdevice.checks.noise import Limits
from pytest_llmdevice.checks.steps import NEW, step_findings
from pytest_llmdevice.diagnosis.hints.generation import CUT
from pytest_llmdevice.diagnosis.hints.sequences import STEPS
from pytest_llmdevice.inference.generation import generate
from pytest_llmdevice.inference.stepping import random_text

Load = Callable[[Cell], Any]
Rows = list[list[int]]

FP32 = Cell("llama", "cpu", "float32")

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")


def looked_at(way: Callable[..., Any], model: Any, prompt: list[int], cell: Cell = FP32) -> Any:
    return step_findings(SimpleNamespace(generate=way), model, prompt, Limits.of(cell))


@pytest.mark.parametrize("family", zoo.families())
def test_the_built_in_generation_chooses_from_what_the_model_says(family: str, loaded: Load, prompts: Rows) -> None:
    prompt = max(prompts, key=len)
    findings, evidence = looked_at(generate, loaded(Cell(family, "cpu", "float32")), prompt)
    assert findings == []
    assert evidence == {f"steps after a prompt of {len(prompt)} tokens": NEW}


def loop(model: Any, prompts: Rows, new: int, change: Callable[[Any], None] = lambda _: None, extra: int = 0) -> Rows:
    """A loop with a cache, which `change` may touch after each pass; `extra` passes at the end choose nothing."""
    rows = []
    with torch.inference_mode():
        for prompt in prompts:
            output = model(torch.tensor([prompt]), use_cache=True)
            row: list[int] = []
            for _ in range(new):
                row.append(int(output.logits[0, -1].argmax()))
                change(output.past_key_values)
                if len(row) < new or extra:
                    output = model(torch.tensor([row[-1:]]), past_key_values=output.past_key_values, use_cache=True)
            rows.append(row)
    return rows


@pytest.mark.parametrize("extra", [0, 1])
def test_a_loop_of_ones_own_is_right_with_and_without_a_last_pass(extra: int, loaded: Load, prompts: Rows) -> None:
    findings, evidence = looked_at(
        lambda model, given, new: loop(model, given, new, extra=extra), loaded(FP32), prompts[0]
    )
    assert findings == []
    assert evidence == {f"steps after a prompt of {len(prompts[0])} tokens": NEW}


def test_a_history_that_is_rounded_is_found_though_the_tokens_are_right(loaded: Load, prompts: Rows) -> None:
    def rounded(cache: Any) -> None:
        for layer in cache.layers:
            layer.keys = (layer.keys * 8).round() / 8

    model, prompt = loaded(FP32), max(prompts, key=len)
    assert loop(model, [prompt], NEW, rounded) == loop(model, [prompt], NEW)
    (finding,), _ = looked_at(lambda model, given, new: loop(model, given, new, rounded), model, prompt)
    assert finding.hint == STEPS
    assert "first at position 1" in finding.where


def test_a_prompt_that_is_cut_is_found_at_the_first_token(loaded: Load, prompts: Rows) -> None:
    (finding,), _ = looked_at(
        lambda model, given, new: generate(model, [one[-128:] for one in given], new),
        loaded(FP32),
        random_text(prompts, 200),
    )
    assert finding.hint == CUT
    assert "a prompt of 200 tokens" in finding.where


def test_steps_that_cannot_be_told_apart_are_not_compared(loaded: Load, prompts: Rows) -> None:
    def way(model: Any, given: Rows, new: int) -> Rows:
        return [[(token + 1) % 256 for token in row] for row in generate(model, given, new)]

    findings, evidence = looked_at(way, loaded(FP32), prompts[0])
    assert findings == []
    assert evidence == {f"steps not told apart, a prompt of {len(prompts[0])} tokens": 1}


def test_a_target_may_refuse_a_long_prompt(loaded: Load, prompts: Rows) -> None:
    def way(model: Any, given: Rows, new: int) -> Rows:
        if max(map(len, given)) > 64:
            raise ValueError("at most 64 tokens")
        return generate(model, given, new)

    result = check_cache(loaded(FP32), FP32, prompts, SimpleNamespace(generate=way))
    assert result.passed
    assert result.evidence["a long prompt is refused"] == "ValueError: at most 64 tokens"


def test_the_cache_check_generates_from_a_long_prompt(loaded: Load, prompts: Rows) -> None:
    def way(model: Any, given: Rows, new: int) -> Rows:
        return generate(model, [one[-200:] for one in given], new)

    (finding,) = check_cache(loaded(FP32), FP32, prompts, SimpleNamespace(generate=way)).findings
    assert finding.hint == CUT
