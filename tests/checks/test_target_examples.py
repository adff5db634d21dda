"""The shipped examples of targets pass where they are right, and fail with the cause where something is planted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from checkpoints import checkpoint

from pytest_llmdevice import Cell, Result, examine

EXAMPLES = Path(__file__).parents[1] / "examples" / "targets"

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")

OF_ITS_OWN = {"padding", "sampling", "save"}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(EXAMPLES)):
            del sys.modules[name]


def outcomes(target: Any, dtype: str = "float32", model: str = "llama") -> dict[str, Result]:
    cell = Cell(model, "cpu", dtype)
    return {result.check: result for result in examine(target, checkpoint(model), cell)}


def wrong(results: dict[str, Result]) -> dict[str, str]:
    return {name: result.message() for name, result in results.items() if result.outcome in {"failed", "hollow"}}


def inapplicable(results: dict[str, Result]) -> set[str]:
    return {name for name, result in results.items() if result.outcome == "inapplicable"}


def target_of(module: str, attribute: str = "") -> Any:
    found = import_module(module)
    return getattr(found, attribute)() if attribute else found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("module", "attribute", "model", "lacking"),
    [
        ("whole_pipeline", "", "llama", set()),
        ("text_only", "", "llama", set()),
        ("templated_chat", "", "llama", set()),
        ("some_cells", "", "llama", set()),
        ("own_model", "", "llama", OF_ITS_OWN),
        ("own_names", "", "llama", OF_ITS_OWN),
        ("last_position", "", "llama", OF_ITS_OWN),
        ("edited", "", "llama", set()),
    ],
)
def test_right_targets_pass(module: str, attribute: str, model: str, lacking: set[str], dtype: str) -> None:
    results = outcomes(target_of(module, attribute), dtype, model)
    assert wrong(results) == {}
    assert inapplicable(results) == lacking


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("attribute", ["Live", "Merged"])
def test_trained_adapters_pass_live_and_merged(attribute: str, dtype: str) -> None:
    pytest.importorskip("peft")
    results = outcomes(target_of("adapters", attribute), dtype, "llama+lora")
    assert wrong(results) == {}
    assert inapplicable(results) == set()
    counted = results["values"].evidence
    assert counted.get("adapter tensors", 0) == (12 if attribute == "Live" else 0)


def changed(module: ModuleType, **functions: Any) -> SimpleNamespace:
    """`module` as a target, with some of its functions replaced."""
    return SimpleNamespace(**{**{key: value for key, value in vars(module).items() if key[0] != "_"}, **functions})


Plant = Callable[[ModuleType], Any]


def _own(change: Callable[[Any], None]) -> Plant:
    def plant(module: ModuleType) -> Any:
        def load(folder: str, cell: Cell) -> Any:
            model = module.load(folder, cell)
            with torch.no_grad():
                change(model)
            return model

        return changed(module, load=load)

    return plant


def _weight(model: Any) -> None:
    model.h[1].up.weight[3] *= 1.5


def _all_weights_of_a_layer(model: Any) -> None:
    model.h[1].query.weight.normal_(generator=torch.Generator().manual_seed(0))


def _two_exchanged(model: Any) -> None:
    first, second = model.h[0].key.weight, model.h[0].value.weight
    kept = first.clone()
    first.copy_(second)
    second.copy_(kept)


def _base_of_rotation(model: Any) -> None:
    for block in model.h:
        block.c = {**block.c, "rope_parameters": {"rope_theta": 500.0}}


def _epsilon(model: Any) -> None:
    model.ln_f.epsilon = 1e-1


def _half(model: Any) -> None:
    model.out.half()


def _training(model: Any) -> None:
    model.train()
    model.h[0].add_module("dropout", torch.nn.Dropout(0.5))


def _one_token_less(module: ModuleType) -> Any:
    return changed(module, generate=lambda loaded, prompts, new: module.generate(loaded, prompts, new - 1))


def _second_best(module: ModuleType) -> Any:
    def generate(loaded: Any, prompts: list[list[int]], new: int) -> list[list[int]]:
        rows: list[list[int]] = module.generate(loaded, prompts, new)
        return [[row[0] + 1, *row[1:]] for row in rows]

    return changed(module, generate=generate)


@pytest.mark.parametrize(
    ("plant", "check", "where"),
    [
        (_own(_weight), "values", "h.1.up.weight"),
        (_own(_all_weights_of_a_layer), "values", "h.1.query.weight"),
        (_own(_two_exchanged), "agreement", "logits"),
        (_own(_base_of_rotation), "agreement", "logits"),
        (_own(_epsilon), "agreement", "logits"),
        (_own(_half), "dtypes", "out.weight"),
        (_one_token_less, "generation", "prompt 0"),
        (_second_best, "agreement", "prompt 0, new token 0"),
    ],
    ids=["a weight", "a weight replaced", "two exchanged", "rotation", "epsilon", "dtype", "short", "tokens"],
)
def test_what_is_wrong_with_a_model_of_ones_own_is_found_under_its_own_names(
    plant: Plant, check: str, where: str
) -> None:
    results = outcomes(plant(import_module("own_model")))
    assert check in wrong(results)
    assert any(finding.where.startswith(where) for finding in results[check].findings), wrong(results)[check]


def test_an_answer_of_text_that_is_cut_is_found() -> None:
    module = import_module("text_only")
    cut = changed(module, generate_text=lambda *given: [text[:-2] for text in module.generate_text(*given)])
    assert "generation" in wrong(outcomes(cut))


def test_an_answer_of_text_with_the_prompt_in_front_is_found() -> None:
    module = import_module("text_only")

    def generate_text(loaded: Any, prompts: list[str], new: int) -> list[str]:
        answers = module.generate_text(loaded, prompts, new)
        return [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]

    assert "generation" in wrong(outcomes(changed(module, generate_text=generate_text)))


def test_a_chat_whose_template_is_another_than_it_says_is_found_by_what_reached_the_model() -> None:
    module = import_module("templated_chat")

    def prompt_ids(loaded: Any, prompts: list[str]) -> list[list[int]]:
        return [row[1:] for row in module.prompt_ids(loaded, prompts)]

    assert wrong(outcomes(changed(module, prompt_ids=prompt_ids)))


def test_what_needs_no_made_up_prompts_is_checked_of_a_chat_too() -> None:
    evidence = outcomes(import_module("templated_chat"))["agreement"].evidence
    assert str(evidence["many prompts"]).startswith("not tried: the target takes text")
    assert int(evidence["modules by themselves"]) > 0


def test_a_list_that_is_called_prompt_ids_is_none_of_ours() -> None:
    results = outcomes(changed(import_module("text_only"), prompt_ids=[[1, 2]]))
    assert wrong(results) == {}


def test_an_edit_that_was_not_made_is_found() -> None:
    module = import_module("edited")
    unedited = changed(module, load=import_module("some_cells").load)
    assert "values" in wrong(outcomes(unedited))
