"""The `assert_*` helpers for users' own tests."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pytest_llmdevice import Cell
from pytest_llmdevice.checks import (
    assert_agrees,
    assert_dtypes,
    assert_eval_mode,
    assert_forward,
    assert_generates,
    assert_no_meta,
    assert_placement,
    assert_quantized,
    assert_tied,
)
from pytest_llmdevice.loading.target import BuiltinTarget

Load = Callable[[Cell], Any]
Checkpoint = Callable[[str], str]
Tokens = list[list[int]]

CELL = Cell("llama", "cpu", "bfloat16")
TARGET = BuiltinTarget()


def test_a_loaded_model_fulfils_them_all(load: Load, checkpoint: Checkpoint, prompts: Tokens) -> None:
    model, folder = load(CELL), checkpoint("llama")
    assert_no_meta(model)
    assert_placement(model, folder, CELL)
    assert_dtypes(model, folder, CELL)
    assert_tied(model, folder, CELL)
    assert_quantized(model, folder, CELL)
    assert_eval_mode(model)
    assert_forward(model, folder, CELL, prompts)
    assert_agrees(TARGET, model, folder, CELL, prompts)
    assert [len(row) for row in assert_generates(TARGET, model, prompts, 3)] == [3, 3, 3]


def failure(call: Callable[..., object], *arguments: Any, **options: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        call(*arguments, **options)
    return str(caught.value).splitlines()[0]


def test_each_fails_with_its_first_finding_in_the_first_line(
    load: Load, checkpoint: Checkpoint, prompts: Tokens
) -> None:
    model, folder = load(CELL), checkpoint("llama")
    card = Cell("llama", "cuda:1", "float16", "nf4")
    cell = f"of {card.id}"
    assert failure(assert_placement, model, folder, card).startswith(
        f"placement {cell}: model.embed_tokens.weight: expected cuda:1, found cpu (and "
    )
    assert failure(assert_dtypes, model, folder, card).startswith(
        f"dtypes {cell}: model.embed_tokens.weight: expected float16, found bfloat16 (and "
    )
    assert failure(assert_quantized, model, folder, card).startswith(
        f"quantization {cell}: model.layers.0.self_attn.q_proj: expected Linear4bit with uint8, found Linear with bf"
    )
    model.lm_head.weight = model.model.embed_tokens.weight
    assert failure(assert_tied, model, folder, CELL).startswith(
        f"tied of {CELL.id}: lm_head.weight: expected a tensor of its own"
    )
    assert failure(assert_agrees, TARGET, model, folder, CELL, prompts).startswith(
        f"agreement of {CELL.id}: logits, first at prompt 0, position "
    )
    model.lm_head.weight = nn.Parameter(torch.full_like(model.lm_head.weight, float("nan")))
    assert failure(assert_forward, model, folder, CELL, prompts).startswith(
        f"forward of {CELL.id}: logits: expected all finite, found "
    )
    assert failure(assert_eval_mode, model.train()).startswith("mode: the model: expected eval mode")
    assert failure(assert_no_meta, model.to("meta")).startswith(
        "meta: model.embed_tokens.weight: expected parameter with data, found meta"
    )


def test_a_target_that_generates_badly_is_found(load: Load, prompts: Tokens) -> None:
    target: Any = SimpleNamespace(load=None, generate=lambda _model, _prompts, _count: "text")
    assert failure(assert_generates, target, load(CELL), prompts) == (
        "generation: what generate returned: expected 3 lists of new token ids, one for each prompt, "
        "found text, str: 'text'"
    )


def test_a_target_without_generate_is_run_with_the_built_in_one(load: Load, prompts: Tokens) -> None:
    model = load(CELL)
    target: Any = SimpleNamespace(load=None)
    assert assert_generates(target, model, prompts, 2) == assert_generates(TARGET, model, prompts, 2)


def test_the_tolerance_can_be_given(load: Load, checkpoint: Checkpoint, prompts: Tokens) -> None:
    arguments = (TARGET, load(CELL), checkpoint("llama"), CELL, prompts)
    assert_agrees(*arguments, tolerance=0.5)
    assert "relative error at most 1e-06" in failure(assert_agrees, *arguments, tolerance=1e-6)
