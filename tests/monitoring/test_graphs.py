"""An autograd graph that a model or a target keeps after generating is found, wherever it is held."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import DynamicCache

from pytest_llmdevice.checks import check_state
from pytest_llmdevice.diagnosis.hints import state
from pytest_llmdevice.inference.generation_run import generate_traced


def cached(computed: torch.Tensor) -> DynamicCache:
    cache = DynamicCache()
    cache.update(computed[None, None], computed[None, None], 0)
    return cache


Keep = Callable[[Any, Any, torch.Tensor], object]

KEPT: dict[str, tuple[Keep, str]] = {
    "tensor": (lambda model, _, made: setattr(model[0], "last", made), "0, last"),
    "buffer": (lambda model, _, made: model[0].register_buffer("kv", made), "0, _buffers['kv']"),
    "cache": (lambda model, _, made: setattr(model, "kv", cached(made)), "the model, kv.layers[0].keys"),
    "list": (lambda _, target, made: target.kept.append({"logits": made}), "the target, kept[0]['logits']"),
    "two deep": (lambda _, target, made: setattr(target.inner, "hidden", [made]), "the target, inner.hidden[0]"),
}


def run(keep: Keep, *, grad: bool) -> Any:
    model = nn.Sequential(nn.Linear(2, 2))

    def generate(_model: Any, prompts: Any, _count: int) -> list[list[int]]:
        with torch.set_grad_enabled(grad):
            keep(model, target, model(torch.ones(1, 2)))
        return [[1] for _ in prompts]

    target = SimpleNamespace(generate=generate, kept=[], inner=SimpleNamespace())
    return check_state((), generate_traced(target, model, [[1]], 1).changes)


@pytest.mark.parametrize(("keep", "where"), KEPT.values(), ids=KEPT)
def test_a_graph_that_is_kept_is_found_by_its_holder(keep: Keep, where: str) -> None:
    (finding,) = run(keep, grad=True).findings
    assert (finding.where, finding.hint) == (where, state.GRAPH)


@pytest.mark.parametrize("keep", [keep for keep, _ in KEPT.values()], ids=KEPT)
def test_what_is_kept_without_a_graph_is_no_finding(keep: Keep) -> None:
    assert run(keep, grad=False).passed


NOT_KEPT: dict[str, Keep] = {
    "let go": lambda _, __, made: made.sum(),
    "detached": lambda model, _, made: setattr(model, "last", made.detach()),
    "a number": lambda _, target, made: target.kept.append(float(made.detach().sum())),
    "a parameter": lambda model, _, made: setattr(model[0], "extra", nn.Parameter(made.detach())),
}


@pytest.mark.parametrize("keep", NOT_KEPT.values(), ids=NOT_KEPT)
def test_gradients_alone_are_no_finding(keep: Keep) -> None:
    assert run(keep, grad=True).passed


def test_a_graph_that_was_there_before_is_not_the_generation_s() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    layer: Any = model[0]
    layer.scaled = layer.weight * 2
    target = SimpleNamespace(generate=lambda _model, prompts, _count: [[1] for _ in prompts])
    assert check_state((), generate_traced(target, model, [[1]], 1).changes).passed
