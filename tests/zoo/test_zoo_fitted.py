"""Tiny checkpoints of any architecture say what they were trained on, and where that cannot be done they say why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from pytest_llmdevice.loading.pretrained import from_pretrained
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.zoo.architectures import checkpoint_of
from pytest_llmdevice.zoo.choices import LOOKS_AHEAD, NO_HEAD, TURNED
from pytest_llmdevice.zoo.families import PAD_TOKEN_ID, SEED, VOCAB_SIZE
from pytest_llmdevice.zoo.fitted import why_unclear
from pytest_llmdevice.zoo.prompts import CONTINUATION_LENGTH, PROMPTS, continuations
from pytest_llmdevice.zoo.routing import settle_routing
from pytest_llmdevice.zoo.tail import Step, tail_of, weights_of

KINDS = {
    "gpt_oss": "experts, an untied head",
    "qwen3_next": "experts beside a shared one with a gate",
    "lfm2_moe": "experts, a tied head",
    "mamba2": "a state",
    "bert": "a tied head behind a matrix, a function and a norm",
    "gemma4_text": "a layer whose output is scaled",
    "bart": "an encoder-decoder",
    "bart_decoder": "the decoder of one",
    "cohere": "logits that are scaled down",
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", KINDS)
def test_an_architecture_of_any_kind_says_what_it_was_trained_on(name: str, dtype: str, zoo_cache: Path) -> None:
    folder = checkpoint_of(name.replace("_decoder", "-decoder"), cache=zoo_cache)
    assert why_unclear(folder) is None
    model: Any = from_pretrained(str(folder), Cell(name, "cpu", dtype))
    for prompt, answer in list(zip(PROMPTS, continuations(SEED), strict=True))[::3]:
        ids = torch.tensor([prompt])
        said = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=CONTINUATION_LENGTH, do_sample=False
        )
        assert said[0, -CONTINUATION_LENGTH:].tolist() == list(answer)


@pytest.mark.parametrize(
    ("name", "why"),
    [("xlnet", LOOKS_AHEAD), ("fsmt", NO_HEAD), ("doge", TURNED)],
)
def test_where_it_cannot_be_done_the_folder_says_why(name: str, why: str, zoo_cache: Path) -> None:
    assert why_unclear(checkpoint_of(name, cache=zoo_cache)) == why


class Toy(nn.Module):
    """Adds what a layer says, scaled, to what it reads; a function, a norm and a head stand behind it."""

    def __init__(self, *, multiplied: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.dense = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 20)
        self.multiplied = multiplied

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = x * self.last(x) if self.multiplied else x + 0.5 * self.last(x.relu())
        state: torch.Tensor = self.norm(functional.gelu(self.dense(x)))
        return state


def tail(model: Toy, count: int) -> list[Step]:
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return tail_of(model, lambda: model(x), lambda _: True, count)


def test_the_end_of_a_model_is_its_last_modules_with_what_is_added_between_them() -> None:
    model = Toy()
    steps = tail(model, 2)
    assert [step.module for step in steps] == [model.last, model.dense, model.norm]
    with torch.no_grad():
        # As long as the rest stays as it is, the steps say what the model would.
        model.last.weight.mul_(2)
        value = steps[0].given
        for step in steps:
            value = step(value)
        x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(value, model(x))
    assert weights_of(steps, lambda weight: weight.ndim > 1) == [model.last.weight, model.dense.weight]


def test_places_are_taken_out_of_the_steps() -> None:
    model = Toy()
    rows, positions = torch.tensor([0, 1, 1]), torch.tensor([2, 0, 1])
    whole = tail(model, 2)
    with torch.no_grad():
        found = wanted = whole[0].given
        found = found[rows, positions][None]
        for step in whole:
            found, wanted = step.at(rows, positions, (2, 3))(found), step(wanted)
    torch.testing.assert_close(found[0], wanted[rows, positions])


def test_what_is_multiplied_with_another_value_is_no_end() -> None:
    model = Toy(multiplied=True)
    assert [step.module for step in tail(model, 2)] == [model.dense, model.norm]


class Routed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB_SIZE, 64)
        self.router = nn.Linear(64, 4, bias=False)
        self.down_proj = nn.Linear(32, 64)

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def get_output_embeddings(self) -> None:
        return None


def test_a_settled_router_decides_by_the_token_and_by_far() -> None:
    model = Routed()
    settle_routing(model, SEED)
    with torch.no_grad():
        written = model.down_proj(torch.randn(PAD_TOKEN_ID, 32))
        scores = model.router(model.embed.weight[:PAD_TOKEN_ID])
        assert (scores.topk(3).values[:, 1] - scores.topk(3).values[:, 2]).min() > 4
        torch.testing.assert_close(model.router(model.embed.weight[:PAD_TOKEN_ID] + written), scores)
