"""Many prompts at once, equal ones, and one that ends early: each row is the one of its prompt."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_llmdevice import Cell, zoo
from pytest_llmdevice.checks.ended_rows import ended_findings
from pytest_llmdevice.checks.many_prompts import NEW, ORDER, many_prompts, many_prompts_findings
from pytest_llmdevice.checks.tolerance import generation_tolerance
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.generation import ENDED_TOGETHER, IN_FRONT, MANY_PROMPTS, ROW_ORDER, TOO_MANY
from pytest_llmdevice.inference.generation import generate, generate_one_by_one, generate_with, inputs_for, pad_token
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.zoo.architectures import checkpoint_of

Load = Callable[[Cell], Any]
Rows = list[list[int]]
Way = Callable[..., Any]

FP32 = Cell("llama", "cpu", "float32")
LENGTH = 8

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")


def served(way: Way, model: Any, prompts: Rows, cell: Cell = FP32) -> list[Finding]:
    target = SimpleNamespace(generate=way)
    alone = generate_one_by_one(target, model, prompts, LENGTH)
    findings, evidence = many_prompts_findings(target, model, prompts, alone, generation_tolerance(cell))
    assert findings or evidence["prompts at once"] == len(ORDER)
    return list(findings)


def ended(way: Way, model: Any, prompts: Rows) -> tuple[list[Finding], dict[str, Any]]:
    target = SimpleNamespace(generate=way)
    findings, evidence = ended_findings(target, model, prompts, generate_with(target, model, prompts, LENGTH))
    return list(findings), evidence


@pytest.mark.parametrize("family", zoo.families())
def test_the_built_in_generation_serves_many(family: str, loaded: Load, prompts: Rows) -> None:
    assert served(generate, loaded(Cell(family, "cpu", "float32")), prompts) == []


def test_no_usual_batch_is_full_with_the_last_prompt_and_some_prompts_are_equal() -> None:
    given = many_prompts([[1], [2, 3], [4, 5, 6]])
    assert all(len(given) % size for size in (2, 3, 4, 5, 6, 8, 16))
    assert len({tuple(prompt) for prompt in given}) < len(given)
    assert len({len(prompt) for prompt in given}) < len({tuple(prompt) for prompt in given})


def test_fewer_than_three_prompts_are_not_multiplied(loaded: Load) -> None:
    assert many_prompts_findings(SimpleNamespace(generate=generate), loaded(FP32), [[1, 2]], [[3]], 0.1) == ([], {})


def by_prompt(model: Any, prompts: Rows, new: int) -> Rows:
    found = {tuple(prompt): generate(model, [prompt], new)[0] for prompt in prompts}
    return list(found.values())


def sorted_by_length(model: Any, prompts: Rows, new: int) -> Rows:
    return generate(model, sorted(prompts, key=len) if len(prompts) > 4 else prompts, new)


def by_length(model: Any, prompts: Rows, new: int) -> Rows:
    found = {len(prompt): generate(model, [prompt], new)[0] for prompt in prompts}
    return [found[len(prompt)] for prompt in prompts]


def always_as_many(model: Any, prompts: Rows, _: int) -> Rows:
    return generate(model, prompts, LENGTH)


@pytest.mark.parametrize(
    ("way", "hint"),
    [(by_prompt, MANY_PROMPTS), (sorted_by_length, ROW_ORDER), (by_length, MANY_PROMPTS), (always_as_many, TOO_MANY)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_rows_that_are_lost_or_mixed_are_found(way: Way, hint: Any, loaded: Load, prompts: Rows) -> None:
    (finding,) = served(way, loaded(FP32), prompts)
    assert finding.hint == hint


def test_a_prompt_that_is_changed_is_told_from_many_that_are_mixed(loaded: Load, prompts: Rows) -> None:
    def way(model: Any, given: Rows, new: int) -> Rows:
        return generate(model, [[257, *prompt] for prompt in given], new)

    (finding,) = served(way, loaded(FP32), prompts)
    assert finding.hint == IN_FRONT
    assert "by itself" in finding.where
    assert ": 1 token in front" in finding.actual


def test_an_exception_for_many_prompts_is_a_finding(loaded: Load, prompts: Rows) -> None:
    def way(model: Any, given: Rows, new: int) -> Rows:
        if len(given) > 8:
            raise ValueError("at most 8 prompts")
        return generate(model, given, new)

    target = SimpleNamespace(generate=way)
    alone = generate_one_by_one(target, loaded(FP32), prompts, LENGTH)
    (finding,) = many_prompts_findings(target, loaded(FP32), prompts, alone, 1e-3)[0]
    assert "at most 8 prompts" in finding.actual


def test_of_a_target_that_is_not_greedy_only_rows_are_counted(loaded: Load, prompts: Rows) -> None:
    def way(model: Any, given: Rows, new: int) -> Rows:
        return [[token + 1 for token in row] for row in generate(model, given, new)]

    assert served(way, loaded(FP32), prompts) == []


def with_ends(model: Any, prompts: Rows, new: int) -> Rows:
    """As most targets generate: end tokens end."""
    inputs = inputs_for(model, prompts)
    output = model.generate(**inputs, do_sample=False, max_new_tokens=new, pad_token_id=pad_token(model))
    rows: Rows = output[:, inputs["input_ids"].shape[1] :].tolist()
    return rows


def test_a_token_that_there_is_not_is_named_where_the_text_part_has_a_configuration_of_its_own(
    prompts: Rows,
) -> None:
    model: Any = BuiltinTarget().load(str(checkpoint_of("gemma3")), Cell("path:gemma3", "cpu", "float32"))
    size: int = model.config.text_config.vocab_size
    assert getattr(model.config, "vocab_size", None) is None

    def way(model: Any, given: Rows, new: int) -> Rows:
        rows = generate(model, given, new)
        return rows if len(given) < len(ORDER) else [[size, *row[1:]] for row in rows]

    (finding,) = served(way, model, prompts)
    assert f"token {size} is none of {size}" in finding.actual


def test_rows_go_on_beside_one_that_ends(loaded: Load, prompts: Rows) -> None:
    model = loaded(FP32)
    before = model.generation_config.eos_token_id
    findings, evidence = ended(with_ends, model, prompts)
    assert findings == []
    assert evidence == {"rows beside one that ends": 2}
    assert model.generation_config.eos_token_id == before


@pytest.mark.parametrize("way", [generate, always_as_many])
def test_a_target_that_never_ends_is_no_finding(way: Way, loaded: Load, prompts: Rows) -> None:
    assert ended(way, loaded(FP32), prompts)[0] == []


def test_a_batch_that_ends_with_its_first_row_is_found(loaded: Load, prompts: Rows) -> None:
    def way(model: Any, given: Rows, new: int) -> Rows:
        rows = with_ends(model, given, new)
        end = model.generation_config.eos_token_id
        stops = [row.index(end) + 1 for row in rows if end in row]
        return [row[: min(stops, default=new)] for row in rows]

    (finding,) = ended(way, loaded(FP32), prompts)[0]
    assert finding.hint == ENDED_TOGETHER
    assert "ended as well" in finding.actual


def test_the_number_of_new_tokens_is_none_that_is_asked_for_elsewhere() -> None:
    assert NEW != LENGTH
