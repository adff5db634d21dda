"""Classes of one's own around a model, and models that were changed in ways that do no harm, pass every check."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from pytest_llmdevice import Cell, examine, zoo
from pytest_llmdevice.inference.generation import generate
from pytest_llmdevice.zoo import cache_directory

Wrap = Callable[[Any], Any]

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")


class HandsOn(nn.Module):
    """Hands everything on, as `self.model(*args, **kwargs)`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


class OfItsOwn(nn.Module):
    """Has a forward and a generate of its own, and no configuration."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.net = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(tokens).logits
        return logits

    def generate(self, prompts: list[list[int]], new: int) -> list[list[int]]:
        return generate(self.net, prompts, new)


class GivesLogits(HandsOn):
    """Returns the logits themselves."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs).logits


def with_a_padding_token(model: Any) -> Any:
    model.resize_token_embeddings(model.config.vocab_size + 8, mean_resizing=False)
    model.config.pad_token_id = model.generation_config.pad_token_id = model.config.vocab_size - 1
    return model


def with_a_fresh_rotary_embedding(model: Any) -> Any:
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    return model


def with_more_positions(model: Any) -> Any:
    model.config.max_position_embeddings *= 4
    return model


@pytest.mark.parametrize(
    ("wrap", "family", "dtype"),
    [
        (HandsOn, "gpt2", "float32"),
        (HandsOn, "mamba", "float32"),
        (HandsOn, "mixtral", "bfloat16"),
        (OfItsOwn, "llama", "bfloat16"),
        (OfItsOwn, "mamba", "float32"),
        (with_a_padding_token, "llama", "float32"),
        (with_a_padding_token, "qwen2", "bfloat16"),
        (with_a_padding_token, "gpt2", "float16"),
        (with_a_padding_token, "deepseek-v3", "bfloat16"),
        (with_a_fresh_rotary_embedding, "llama", "bfloat16"),
        (with_more_positions, "mistral", "float32"),
    ],
)
def test_it_passes_every_check(wrap: Wrap, family: str, dtype: str) -> None:
    def load(folder: str, cell: Cell) -> Any:
        return wrap(AutoModelForCausalLM.from_pretrained(folder, dtype=cell.torch_dtype))

    def own(model: Any, prompts: list[list[int]], new: int) -> list[list[int]]:
        return generate(getattr(model, "net", getattr(model, "inner", model)), prompts, new)

    target: Any = SimpleNamespace(load=load, generate=own)
    cell = Cell(family, "cpu", dtype)
    results = list(examine(target, zoo.checkpoint(family), cell, folder=cache_directory() / "references"))
    assert [result.message(cell.id) for result in results if not result.passed] == []
    assert len(results) > 1


def test_a_wrapper_that_gives_logits_is_run_like_any_other() -> None:
    from pytest_llmdevice.inference.logits import forward_logits, logits_of

    model = AutoModelForCausalLM.from_pretrained(zoo.checkpoint("llama"))
    inputs = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    assert torch.equal(forward_logits(GivesLogits(model), inputs), forward_logits(model, inputs))
    assert logits_of((torch.ones(1, 2, 3), None)).shape == (1, 2, 3)
