"""The built-in generation: padding, masks, where inputs belong, and what the target is given."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pytest_llmdevice import Cell, zoo
from pytest_llmdevice.inference.generation import batch, generate, generate_with, inputs_for, pad_token
from pytest_llmdevice.inference.logits import forward_logits
from pytest_llmdevice.inference.prompts import PROMPT_TEXTS, encode, load_tokenizer
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.model.device_map import embedding_device, execution_device

Checkpoint = Callable[[str], str]

CPU = torch.device("cpu")

PROMPTS = [[72, 101, 108, 108, 111], [50], [84, 104, 101]]


def load(checkpoint: Checkpoint, family: str) -> Any:
    return BuiltinTarget().load(checkpoint(family), Cell(family, "cpu", "float32"))


def test_a_decoder_is_padded_on_the_left() -> None:
    inputs = batch([[1, 2, 3], [4]], pad=9, device=CPU)
    assert inputs["input_ids"].tolist() == [[1, 2, 3], [9, 9, 4]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


def test_an_encoder_is_padded_on_the_right() -> None:
    inputs = batch([[1, 2, 3], [4]], pad=9, device=CPU, left=False)
    assert inputs["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_ids_and_mask_are_whole_numbers_on_the_device_that_was_asked_for() -> None:
    for tensor in batch([[1]], pad=0, device=torch.device("meta")).values():
        assert (tensor.dtype, tensor.device.type) == (torch.int64, "meta")


@pytest.mark.parametrize(("family", "first_row"), [("llama", [256, 256, 50]), ("t5", [50, 256, 256])])
def test_a_model_gets_the_padding_it_needs(family: str, first_row: list[int], checkpoint: Checkpoint) -> None:
    inputs = inputs_for(load(checkpoint, family), [[50], [1, 2, 3]])
    assert inputs["input_ids"][0].tolist() == first_row


@pytest.mark.parametrize(
    ("generation", "configured", "token"),
    [(7, 8, 7), (None, 8, 8), (None, None, 0), (0, 8, 0), ([5], 8, 8)],
)
def test_the_padding_is_the_models_own_or_any(generation: object, configured: object, token: int) -> None:
    model = SimpleNamespace(
        generation_config=SimpleNamespace(pad_token_id=generation), config=SimpleNamespace(pad_token_id=configured)
    )
    assert pad_token(model) == token


def test_a_model_without_any_configuration_can_be_padded() -> None:
    assert pad_token(nn.Linear(1, 1)) == 0


class Hooked(nn.Module):
    """A model as accelerate leaves it: weights on meta, and a hook that knows where they go."""

    def __init__(self, hook: object) -> None:
        super().__init__()
        self.first = nn.Linear(1, 1)
        self.embedding = nn.Embedding(2, 2, device="meta")
        self.embedding._hf_hook = hook  # type: ignore[assignment]

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding


@pytest.mark.parametrize(
    ("device", "expected"), [("cpu", "cpu"), (1, "cuda:1"), ("cuda:1", "cuda:1"), (torch.device("mps"), "mps")]
)
def test_inputs_go_where_the_hook_of_the_embedding_executes(device: object, expected: str) -> None:
    model = Hooked(SimpleNamespace(execution_device=device))
    assert embedding_device(model) == torch.device(expected)


def test_a_hook_among_several_is_found() -> None:
    chain = SimpleNamespace(hooks=[SimpleNamespace(), SimpleNamespace(execution_device="cpu")])
    assert embedding_device(Hooked(chain)) == CPU


def test_without_a_hook_a_module_runs_where_its_tensors_are() -> None:
    # Not where those of the model's first module are: that one is on the CPU.
    assert embedding_device(Hooked(None)) == torch.device("meta")


def test_a_module_without_tensors_runs_on_the_cpu() -> None:
    assert execution_device(nn.ReLU()) == CPU


def test_a_module_with_buffers_only_runs_where_they_are() -> None:
    module = nn.Module()
    module.register_buffer("mask", torch.ones(1, device="meta"))
    assert execution_device(module) == torch.device("meta")


@pytest.mark.filterwarnings("ignore:Some parameters are on the meta device")
def test_inputs_of_an_offloaded_model_are_on_the_device_it_runs_on(checkpoint: Checkpoint) -> None:
    cell = Cell("llama", "cpu", "float32", strategy="disk-offload")
    model: Any = BuiltinTarget().load(checkpoint("llama"), cell)
    assert execution_device(model.model.layers[1].mlp.up_proj) == CPU
    assert inputs_for(model, PROMPTS)["input_ids"].device == CPU


@pytest.mark.parametrize("family", zoo.families())
def test_a_prompt_in_a_padded_batch_is_continued_as_if_it_were_alone(family: str, checkpoint: Checkpoint) -> None:
    model = load(checkpoint, family)
    prompts = [list(prompt) for prompt in zoo.PROMPTS]
    together = generate(model, prompts, 6)
    assert together == [generate(model, [prompt], 6)[0] for prompt in prompts]
    assert [len(row) for row in together] == [6] * len(prompts)


def test_only_new_tokens_are_returned_as_plain_integers(checkpoint: Checkpoint) -> None:
    model = load(checkpoint, "llama")
    rows = generate(model, PROMPTS, 4)
    assert all(type(token) is int for row in rows for token in row)
    whole = model.generate(**inputs_for(model, PROMPTS), max_new_tokens=4, do_sample=False)
    assert rows == whole[:, 5:].tolist()


def test_generation_goes_past_the_end_token(checkpoint: Checkpoint) -> None:
    model = load(checkpoint, "llama")
    (first,) = generate(model, PROMPTS[:1], 4)
    model.generation_config.eos_token_id = first[1]
    assert len(generate(model, PROMPTS[:1], 4)[0]) == 4


def test_prompts_are_not_changed(checkpoint: Checkpoint) -> None:
    prompts = [[1, 2, 3], [4]]
    generate(load(checkpoint, "llama"), prompts, 2)
    assert prompts == [[1, 2, 3], [4]]


def pad_in_place(_model: object, prompts: list[list[int]], _max_new_tokens: int) -> list[list[int]]:
    for prompt in prompts:
        prompt.insert(0, 0)
    return prompts


PADDER = SimpleNamespace(generate=pad_in_place)


def test_a_target_that_pads_in_place_gets_lists_of_its_own() -> None:
    prompts = [[1, 2], [3]]
    first = generate_with(PADDER, None, prompts, 2)
    assert first == generate_with(PADDER, None, prompts, 2) == [[0, 1, 2], [0, 3]]
    assert prompts == [[1, 2], [3]]


def test_prompts_given_as_tuples_reach_the_target_as_lists() -> None:
    assert generate_with(PADDER, None, ((1, 2), (3,)), 2) == [[0, 1, 2], [0, 3]]


def test_a_target_without_generate_is_run_with_the_built_in_one(checkpoint: Checkpoint) -> None:
    model = load(checkpoint, "llama")
    assert generate_with(SimpleNamespace(), model, PROMPTS, 3) == generate(model, PROMPTS, 3)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_forward_pass_has_a_position_for_each_token(family: str, checkpoint: Checkpoint) -> None:
    model = load(checkpoint, family)
    assert tuple(forward_logits(model, inputs_for(model, PROMPTS)).shape) == (3, 5, 320)


def test_a_decoder_without_a_start_token_starts_with_padding() -> None:
    seen: dict[str, torch.Tensor] = {}

    def model(**inputs: torch.Tensor) -> SimpleNamespace:
        seen.update(inputs)
        return SimpleNamespace(logits=torch.zeros(1, 3, 4))

    model.config = SimpleNamespace(  # type: ignore[attr-defined]
        is_encoder_decoder=True, decoder_start_token_id=None, pad_token_id=9
    )
    forward_logits(model, batch([[1, 2, 3]], pad=9, device=CPU))
    assert seen["decoder_input_ids"].tolist() == [[9, 1, 2]]


def test_the_prompts_of_the_suite_are_of_unequal_length(checkpoint: Checkpoint) -> None:
    tokenizer = load_tokenizer(checkpoint("llama"))
    prompts = encode(tokenizer)
    assert len({len(prompt) for prompt in prompts}) == len(PROMPT_TEXTS)
    assert [tokenizer.decode(prompt) for prompt in prompts] == list(PROMPT_TEXTS)
    assert tokenizer.padding_side == "left"
