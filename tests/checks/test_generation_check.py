"""The check of what a target's `generate` returned."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pytest_llmdevice import Cell, zoo
from pytest_llmdevice.checks import Result, check_generation
from pytest_llmdevice.diagnosis.hints.generation import KEPT, PROMPT_IN_FRONT, RANDOM, UNREPEATED
from pytest_llmdevice.inference.generation import generate
from pytest_llmdevice.inference.generation_run import GenerationRun, generate_traced
from pytest_llmdevice.monitoring.trace import Call, Trace

Load = Callable[[Cell], Any]
Tokens = list[list[int]]

PROMPTS = [[1, 2, 3], [4]]
RIGHT = [[5, 6, 7], [8, 9, 0]]
MODEL = SimpleNamespace(config=SimpleNamespace(vocab_size=10, eos_token_id=9), generation_config=None)


def checked(first: object, second: object = None, model: Any = MODEL) -> Result:
    return check_generation(GenerationRun(first, first if second is None else second), PROMPTS, 3, model)


def only(result: Result) -> tuple[str, str, str]:
    (finding,) = result.findings
    return finding.where, finding.expected, finding.actual


@pytest.mark.parametrize("family", zoo.families())
def test_a_loaded_model_passes(family: str, loaded: Load, prompts: Tokens) -> None:
    model = loaded(Cell(family, "cpu", "bfloat16"))
    result = check_generation(
        GenerationRun(generate(model, prompts, 8), generate(model, prompts, 8)), prompts, 8, model
    )
    assert result.passed
    assert result.evidence == {"prompts": len(prompts), "tokens": 8 * len(prompts)}


@pytest.mark.parametrize(
    "output",
    [
        RIGHT,
        tuple(map(tuple, RIGHT)),
        torch.tensor(RIGHT),
        list(torch.tensor(RIGHT)),
        [[torch.tensor(token) for token in row] for row in RIGHT],
        np.array(RIGHT),
        [[float(token) for token in row] for row in RIGHT],
    ],
    ids=["lists", "tuples", "a tensor", "tensors", "scalars", "an array", "floats"],
)
def test_token_ids_pass_whatever_holds_them(output: object) -> None:
    result = checked(output)
    assert result.passed
    assert result.evidence == {"prompts": 2, "tokens": 6}


@pytest.mark.parametrize(
    ("output", "actual"),
    [
        ("Hello there", "text, str: 'Hello there'"),
        (["Hello", "there"], "text, list: \"['Hello', 'there']\""),
        (None, "None: is a return missing?"),
        (3, "int: '3'"),
        ([5, 6], "list: '[5, 6]'"),
        ([[5.5], [6.0]], "list: '[[5.5], [6.0]]'"),
        ([[float("nan")], [1.0]], "list: '[[nan], [1.0]]'"),
        ([[float("inf")], [1.0]], "list: '[[inf], [1.0]]'"),
        ({"sequences": RIGHT}, "dict: the ids are in its sequences"),
        ([RIGHT, RIGHT], f"list: '[{RIGHT}, {RIGHT}]'"),
    ],
    ids=["text", "texts", "nothing", "number", "flat", "fractions", "nan", "inf", "dict", "nested"],
)
def test_what_is_no_list_of_token_ids_for_each_prompt_is_found(output: object, actual: str) -> None:
    assert only(checked(output)) == (
        "what generate returned",
        "2 lists of new token ids, one for each prompt",
        actual,
    )


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_another_number_of_rows_is_found(rows: int) -> None:
    assert only(checked([[5, 6, 7]] * rows)) == (
        "what generate returned",
        "2 lists of new token ids, one for each prompt",
        f"{rows} of them",
    )


def test_a_second_generation_that_is_malformed_is_found_too() -> None:
    assert only(checked(RIGHT, "text"))[2] == "text, str: 'text'"


@pytest.mark.parametrize("row", [[8], [], [8, 2]])
def test_too_few_tokens_are_found(row: list[int]) -> None:
    assert only(checked([RIGHT[0], row])) == (
        "prompt 1",
        "3 new tokens (or an end token)",
        f"{len(row)} tokens: {row}",
    )


@pytest.mark.parametrize("ends", [9, [3, 9], (9,)])
def test_fewer_tokens_are_right_where_the_sequence_ends(ends: object) -> None:
    model = SimpleNamespace(config=SimpleNamespace(vocab_size=10, eos_token_id=ends))
    assert checked([RIGHT[0], [8, 9]], model=model).passed


def test_the_end_token_of_the_generation_comes_before_the_configurations() -> None:
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=7), config=MODEL.config)
    assert checked([RIGHT[0], [8, 7]], model=model).passed
    assert not checked([RIGHT[0], [8, 9]], model=model).passed


@pytest.mark.parametrize("padding", [0, 2])
def test_a_prompt_in_front_of_the_new_tokens_is_found(padding: int) -> None:
    whole = [[0] * padding + prompt + new for prompt, new in zip(PROMPTS, RIGHT, strict=True)]
    result = checked(whole)
    assert [(finding.expected, finding.actual) for finding in result.findings] == [
        ("3 new tokens", f"{6 + padding} tokens, the first {3 + padding} of them the prompt"),
        ("3 new tokens", f"{4 + padding} tokens, the first {1 + padding} of them the prompt"),
    ]
    assert {finding.hint for finding in result.findings} == {PROMPT_IN_FRONT}
    assert "returns, for each prompt and in their order, the ids of the new tokens" in result.message()


def test_the_start_token_of_a_decoder_in_front_is_found() -> None:
    model = SimpleNamespace(config=SimpleNamespace(vocab_size=10, eos_token_id=9, is_encoder_decoder=True))
    result = checked([[0, *row] for row in RIGHT], model=model)
    assert result.findings[0].actual == "4 tokens, the first of them the decoder's start token: [0, 5, 6, 7]"
    assert {finding.hint for finding in result.findings} == {PROMPT_IN_FRONT}


def test_padding_behind_an_end_token_is_right() -> None:
    model = SimpleNamespace(config=SimpleNamespace(vocab_size=10, eos_token_id=9, pad_token_id=0))
    assert checked([[5, 9], [9, 0]], model=model).passed
    assert checked([[5, 9], [9, 4]], model=model).passed


@pytest.mark.parametrize("token", [10, 11, -1])
def test_a_token_that_the_vocabulary_does_not_have_is_found(token: int) -> None:
    assert only(checked([[5, token, 7], RIGHT[1]])) == ("prompt 0", "token ids below 10", f"[{token}]")


def test_without_a_vocabulary_only_negative_tokens_are_wrong() -> None:
    model = SimpleNamespace(config=SimpleNamespace())
    assert checked([[5, 10**6, 7], RIGHT[1]], model=model).passed
    assert not checked([[5, -100, 7], RIGHT[1]], model=model).passed


def test_other_tokens_the_second_time_are_found() -> None:
    result = checked(RIGHT, [RIGHT[0], [8, 1, 0]])
    assert only(result) == ("prompt 1", "the same tokens twice: [8, 9, 0]", "[8, 1, 0]")
    assert result.findings[0].hint == UNREPEATED


def test_what_is_kept_between_two_calls_is_told_from_sampling() -> None:
    call = Call("forward", "", True, {}, 7, 2)
    again = GenerationRun(RIGHT, [RIGHT[0], [8, 1, 0]], trace=Trace([call]), second_starts=0)
    (finding,) = check_generation(again, PROMPTS, 3, MODEL).findings
    assert finding.hint == KEPT
    drawn = GenerationRun(RIGHT, [RIGHT[0], [8, 1, 0]], drawn=True)
    (finding,) = check_generation(drawn, PROMPTS, 3, MODEL).findings
    assert finding.hint == RANDOM


def test_sampling_is_found(load: Load, prompts: Tokens) -> None:
    model = load(Cell("llama", "cpu", "float32"))
    torch.manual_seed(0)
    model.generation_config.update(do_sample=True, temperature=5.0)

    def sample() -> Tokens:
        inputs = torch.tensor([prompts[0]])
        rows = model.generate(inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=8, min_new_tokens=8)
        return [row.tolist() for row in rows[:, inputs.shape[1] :]]

    target = SimpleNamespace(generate=lambda *_: sample())
    result = check_generation(generate_traced(target, model, prompts[:1], 8), prompts[:1], 8, model)
    assert [finding.hint for finding in result.findings] == [RANDOM]


def test_no_prompts_are_hollow() -> None:
    assert check_generation(GenerationRun([], []), [], 3, MODEL).hollow
