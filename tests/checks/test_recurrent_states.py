"""Recurrent and convolution states are held to the dtype and device of their layers, as keys and values are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from checks.unusual import Prompts, Target

from pytest_llmdevice import Cell, Result, examine, zoo
from pytest_llmdevice.diagnosis.hints.sequences import CACHE_DTYPE
from pytest_llmdevice.model.kv_cache import cache_of, state_tensors
from pytest_llmdevice.monitoring.tracing import exact_half
from pytest_llmdevice.zoo import cache_directory

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")

CHUNK = 4
Pool = Callable[[torch.Tensor], torch.Tensor]


def pooled(pool: Pool, which: str) -> Target:
    """A loop whose states go through a pool after each chunk of the prompt, as those of a prefix cache do."""

    @torch.no_grad()
    def one(model: Any, prompt: list[int], count: int) -> list[int]:
        row: list[int] = []
        cache, text = None, list(prompt)
        while True:
            for at, token in enumerate(text):
                output = model(torch.tensor([[token]]), cache_params=cache, use_cache=True)
                cache = cache_of(output)
                if not row and (at + 1) % CHUNK == 0:
                    for layer in cache.layers:
                        states = getattr(layer, which)
                        for key in states:
                            states[key] = pool(states[key])
            row.append(int(output.logits[0, -1].argmax()))
            if len(row) == count:
                return row
            text = row[-1:]

    def answer(model: Any, prompts: Prompts, count: int) -> list[list[int]]:
        return [one(model, list(prompt), count) for prompt in prompts]

    return Target(answer)


def results(target: Target, cell: Cell) -> list[Result]:
    folder = zoo.checkpoint(cell.model)
    return list(examine(target, folder, cell, folder=cache_directory() / "references"))


@pytest.mark.parametrize("which", ["recurrent_states", "conv_states"])
def test_a_state_that_is_kept_in_half_is_found(which: str) -> None:
    cell = Cell("mamba", "cpu", "float32")
    found = [
        finding
        for result in results(pooled(lambda state: state.to(torch.bfloat16).to(state.dtype), which), cell)
        for finding in result.findings
    ]
    assert any(finding.hint == CACHE_DTYPE and which in finding.where for finding in found), found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_state_that_is_copied_is_right(dtype: str) -> None:
    cell = Cell("mamba", "cpu", dtype)
    for result in results(pooled(torch.clone, "recurrent_states"), cell):
        assert result.passed, result.message()


def test_the_states_of_a_cache_are_named_by_layer(load: Callable[[Cell], Any]) -> None:
    model = load(Cell("mamba", "cpu", "float32"))
    cache = cache_of(model(torch.tensor([[5, 6, 7]]), use_cache=True))
    known = {(layer, name) for layer, name, _ in state_tensors(cache)}
    assert {(0, "conv_states"), (0, "recurrent_states"), (1, "recurrent_states")} <= known


@pytest.mark.parametrize("value", [0.0, 1.0, float("-inf")])
def test_a_state_that_nothing_was_written_to_was_not_rounded(value: float) -> None:
    assert exact_half(torch.full((2, 3), value)) is None


def test_a_state_that_was_rounded_is_told_by_its_dtype() -> None:
    values = torch.randn(4, 4)
    assert exact_half(values) is None
    assert exact_half(values.bfloat16().float()) == torch.bfloat16
    assert exact_half(values.half().float()) == torch.float16


def looped(fault: str) -> Target:
    """A loop that feeds tokens one by one, with a state that is not where the tokens are."""
    kept: list[Any] = []

    def snapshot(cache: Any) -> list[tuple[Any, str, Any, torch.Tensor]]:
        return [
            (layer, which, key, value.clone())
            for layer in cache.layers
            for which in ("conv_states", "recurrent_states")
            for key, value in (getattr(layer, which, None) or {}).items()
            if value is not None
        ]

    @torch.no_grad()
    def one(model: Any, prompt: list[int], count: int) -> list[int]:
        row: list[int] = []
        cache = kept[0] if fault == "not reset" and kept else None
        text = list(prompt)
        while True:
            for at, token in enumerate(text):
                output = model(torch.tensor([[token]]), cache_params=cache, use_cache=True)
                cache = cache_of(output)
                if fault == "offset" and not row and at + 1 == len(text) - 1:
                    for layer, _, key, value in snapshot(cache):
                        if key in layer.conv_states and layer.conv_states[key].shape == value.shape:
                            layer.conv_states[key] = layer.conv_states[key].roll(1, -1)
            kept[:] = [cache]
            row.append(int(output.logits[0, -1].argmax()))
            if len(row) == count:
                return row
            text = row[-1:]
            if fault in {"not rolled back", "rolled back"}:
                # A draft that is refused: the state has seen it.
                before = snapshot(cache)
                model(torch.tensor([[(row[-1] + 1) % 200]]), cache_params=cache, use_cache=True)
                if fault == "rolled back":
                    for layer, which, key, value in before:
                        getattr(layer, which)[key] = value

    return Target(lambda model, prompts, count: [one(model, list(prompt), count) for prompt in prompts])


@pytest.mark.parametrize("fault", ["offset", "not reset", "not rolled back"])
@pytest.mark.parametrize("model", ["mamba", "mamba2"])
def test_a_state_that_is_not_where_the_tokens_are_is_found(model: str, fault: str) -> None:
    wrong = {result.check for result in results(looped(fault), Cell(model, "cpu", "float32")) if not result.passed}
    assert wrong & {"generation", "agreement", "cache"}


@pytest.mark.parametrize("fault", ["none", "rolled back"])
@pytest.mark.parametrize("model", ["mamba", "mamba2"])
def test_a_state_that_is_where_the_tokens_are_is_right(model: str, fault: str) -> None:
    for result in results(looped(fault), Cell(model, "cpu", "float32")):
        assert result.passed, result.message()
