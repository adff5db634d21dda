"""Classes of one's own around a model, and models that were changed in ways that do no harm, pass every check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from pytest_llmdevice import Cell, examine, zoo
from pytest_llmdevice.inference.generation import generate
from pytest_llmdevice.zoo import cache_directory
from pytest_llmdevice.zoo.architectures import checkpoint_of

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


class BodyAndHead(nn.Module):
    """Takes a model's body and head, and runs them itself."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.lm_head, self.config = model.model, model.lm_head, model.config
        self.generate, self.generation_config = model.generate, model.generation_config

    def forward(self, input_ids: torch.Tensor, **inputs: Any) -> Any:
        output = self.model(input_ids=input_ids, **inputs)
        output.logits = self.lm_head(output.last_hidden_state)
        return output


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
        (BodyAndHead, "qwen2", "float32"),
    ],
)
def test_it_passes_every_check(wrap: Wrap, family: str, dtype: str) -> None:
    assert complaints(wrap, zoo.checkpoint(family), Cell(family, "cpu", dtype)) == []


def test_it_passes_every_check_around_a_model_that_sees_too() -> None:
    assert complaints(BodyAndHead, checkpoint_of("gemma3"), Cell("gemma3", "cpu", "float32")) == []


def complaints(wrap: Wrap, checkpoint: Path, cell: Cell) -> list[str]:
    def load(folder: str, cell: Cell) -> Any:
        return wrap(AutoModelForCausalLM.from_pretrained(folder, dtype=cell.torch_dtype))

    def own(model: Any, prompts: list[list[int]], new: int) -> list[list[int]]:
        return generate(getattr(model, "net", getattr(model, "inner", model)), prompts, new)

    target: Any = SimpleNamespace(load=load, generate=own)
    results = list(examine(target, checkpoint, cell, folder=cache_directory() / "references"))
    assert len(results) > 1
    return [result.message(cell.id) for result in results if result.outcome not in {"passed", "inapplicable"}]


def test_a_wrapper_that_gives_logits_is_run_like_any_other() -> None:
    from pytest_llmdevice.inference.logits import forward_logits, logits_of

    model = AutoModelForCausalLM.from_pretrained(zoo.checkpoint("llama"))
    inputs = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    assert torch.equal(forward_logits(GivesLogits(model), inputs), forward_logits(model, inputs))
    assert logits_of((torch.ones(1, 2, 3), None)).shape == (1, 2, 3)
