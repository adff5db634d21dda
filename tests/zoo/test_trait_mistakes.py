"""Loaders that make the usual mistake with a trait of a checkpoint fail on it, and the loader without it passes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from pytest_llmdevice import Cell, examine
from pytest_llmdevice.inference.generation import batch, generate, pad_token
from pytest_llmdevice.zoo import checkpoint

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")

Rows = list[list[int]]


def as_it_is(model: Any, _folder: str) -> Any:
    return model


@dataclass(frozen=True)
class Loader:
    """A loader that changes its model by `spoil`, and generates by `answer`; with `auto`, in the dtype it finds."""

    spoil: Callable[[Any, str], Any] = as_it_is
    answer: Callable[[Any, Sequence[Sequence[int]], int], Rows] = generate
    auto: bool = False

    def load(self, folder: str, cell: Cell) -> Any:
        library: Any = AutoModelForCausalLM
        dtype = "auto" if self.auto else cell.torch_dtype
        return self.spoil(library.from_pretrained(folder, dtype=dtype).eval(), folder)

    def generate(self, model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> Rows:
        return self.answer(model, prompts, max_new_tokens)


def said(model: Any, inputs: dict[str, torch.Tensor], count: int, **options: Any) -> Rows:
    given = {"do_sample": False, "pad_token_id": pad_token(model), **options}
    given = {name: value for name, value in given.items() if value is not None}
    with torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=count, min_new_tokens=count, **given)
    rows: Rows = output[:, inputs["input_ids"].shape[1] :].tolist()
    return rows


def padded_with_the_end_and_no_mask(model: Any, prompts: Sequence[Sequence[int]], count: int) -> Rows:
    end = model.config.eos_token_id
    inputs = batch(prompts, pad=end, device=torch.device("cpu"))
    return said(model, {"input_ids": inputs["input_ids"]}, count, pad_token_id=end)


def padded_with_zero_and_no_mask(model: Any, prompts: Sequence[Sequence[int]], count: int) -> Rows:
    inputs = batch(prompts, pad=0, device=torch.device("cpu"))
    return said(
        model, {"input_ids": inputs["input_ids"], "attention_mask": torch.ones_like(inputs["input_ids"])}, count
    )


def padded_on_the_right(model: Any, prompts: Sequence[Sequence[int]], count: int) -> Rows:
    return said(model, batch(prompts, pad=pad_token(model), device=torch.device("cpu"), left=False), count)


def sampled_as_configured(model: Any, prompts: Sequence[Sequence[int]], count: int) -> Rows:
    inputs = batch(prompts, pad=pad_token(model), device=torch.device("cpu"))
    return said(model, inputs, count, do_sample=None)


def stopped_by_the_first_end_only(model: Any, prompts: Sequence[Sequence[int]], count: int) -> Rows:
    inputs = batch(prompts, pad=pad_token(model), device=torch.device("cpu"))
    with torch.no_grad():
        output = model.generate(
            **inputs, do_sample=False, max_new_tokens=count, eos_token_id=model.generation_config.eos_token_id[0]
        )
    rows: Rows = output[:, inputs["input_ids"].shape[1] :].tolist()
    return rows


def scaled_by_the_width_of_heads(model: Any, _folder: str) -> Any:
    for module in model.modules():
        if hasattr(module, "scaling") and hasattr(module, "q_proj"):
            module.scaling = module.head_dim**-0.5
    return model


def usual_epsilon(model: Any, _folder: str) -> Any:
    for module in model.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 1e-6
    return model


def without_correction(model: Any, _folder: str) -> Any:
    for name, tensor in (*model.named_buffers(), *model.named_parameters()):
        if name.endswith("e_score_correction_bias"):
            tensor.data.zero_()
    return model


def head_of_its_own(model: Any, _folder: str) -> Any:
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    return model


def cut_to_the_tokenizer(model: Any, folder: str) -> Any:
    model.resize_token_embeddings(len(AutoTokenizer.from_pretrained(folder)))
    return model


def without_scaling(model: Any, folder: str) -> Any:
    config: Any = AutoConfig.from_pretrained(folder)
    config.rope_parameters = {"rope_type": "default", "rope_theta": config.rope_parameters["rope_theta"]}
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model


def long_factors_for_short_texts(model: Any, _folder: str) -> Any:
    config = model.config
    settings = {**config.rope_parameters, "short_factor": config.rope_parameters["long_factor"]}
    model.model.rotary_emb = type(model.model.rotary_emb)(
        type(config)(**{**config.to_dict(), "rope_parameters": settings})
    )
    return model


@dataclass
class Talk:
    """What a chat is loaded as."""

    network: Any
    tokenizer: Any

    def rendered(self, text: str) -> str:
        messages = [{"role": "user", "content": text}]
        said: str = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return said


def once(talk: Talk, text: str) -> str:
    return talk.rendered(text)


def twice(talk: Talk, text: str) -> str:
    return talk.rendered(talk.rendered(text))


def not_at_all(_talk: Talk, text: str) -> str:
    return text


@dataclass(frozen=True)
class Chat:
    """A chat that says what its template makes of texts, and has its model read what `read` makes of them."""

    read: Callable[[Talk, str], str] = once

    def load(self, folder: str, cell: Cell) -> Talk:
        library: Any = AutoModelForCausalLM
        model = library.from_pretrained(folder, dtype=cell.torch_dtype).eval()
        return Talk(model, AutoTokenizer.from_pretrained(folder))

    def model(self, talk: Talk) -> Any:
        return talk.network

    def prompt_ids(self, talk: Talk, prompts: Sequence[str]) -> Rows:
        return [talk.tokenizer(talk.rendered(text))["input_ids"] for text in prompts]

    def generate_text(self, talk: Talk, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        return [self.answer(talk, text, max_new_tokens) for text in prompts]

    def answer(self, talk: Talk, text: str, count: int) -> str:
        ids = torch.tensor([talk.tokenizer(self.read(talk, text))["input_ids"]])
        with torch.no_grad():
            output = talk.network.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False
            )
        answer: str = talk.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
        return answer


RIGHT = Loader()

MISTAKES = [
    ("gpt2~no-pad", "float32", Loader(answer=padded_with_the_end_and_no_mask), "inputs"),
    ("gpt2~no-pad", "float32", Loader(answer=padded_with_zero_and_no_mask), "inputs"),
    ("llama~right", "float32", Loader(answer=padded_on_the_right), "inputs"),
    ("phi3~sampling", "float32", Loader(answer=sampled_as_configured), "agreement"),
    ("qwen3~eos-list", "float32", Loader(answer=stopped_by_the_first_end_only), "agreement"),
    ("gemma3~attention-scale", "float32", Loader(scaled_by_the_width_of_heads), "loads"),
    ("phi3~epsilon", "bfloat16", Loader(usual_epsilon), "loads"),
    ("deepseek-v3~bias-correction", "bfloat16", Loader(without_correction), "values"),
    ("opt~stored-otherwise", "bfloat16", Loader(auto=True), "dtypes"),
    ("qwen2~stored-twice", "float32", Loader(head_of_its_own), "tied"),
    ("llama~rope-linear", "bfloat16", Loader(without_scaling), "values"),
    ("llama~rope-dynamic", "bfloat16", Loader(without_scaling), "prefix"),
    ("llama~rope-yarn", "bfloat16", Loader(without_scaling), "loads"),
    ("llama~rope-llama3", "bfloat16", Loader(without_scaling), "values"),
    ("phi3~rope-longrope", "bfloat16", Loader(without_scaling), "loads"),
    ("phi3~rope-longrope", "bfloat16", Loader(long_factors_for_short_texts), "values"),
    ("bloom~large-vocab", "float32", Loader(cut_to_the_tokenizer), "loads"),
]


CHATS = [
    ("qwen2~chat", "float32", Chat(twice), "agreement"),
    ("qwen2~chat", "float32", Chat(not_at_all), "agreement"),
]


def red(loader: Loader | Chat, model: str, dtype: str, cache: Path) -> Generator[str]:
    """The checks that find something, as they are made: nobody waits for those behind the first."""
    folder = checkpoint(model, cache=cache)
    for result in examine(loader, folder, Cell(model, "cpu", dtype), folder=cache / "references"):
        if result.outcome not in {"passed", "inapplicable"}:
            yield result.check


@pytest.mark.parametrize(("model", "dtype"), sorted({(model, dtype) for model, dtype, _, _ in MISTAKES}))
def test_the_loader_without_a_mistake_passes(model: str, dtype: str, zoo_cache: Path) -> None:
    assert list(red(RIGHT, model, dtype, zoo_cache)) == []


def test_a_chat_whose_model_reads_what_its_template_makes_passes(zoo_cache: Path) -> None:
    assert list(red(Chat(), "qwen2~chat", "float32", zoo_cache)) == []


@pytest.mark.parametrize(("model", "dtype", "loader", "check"), [*MISTAKES, *CHATS])
def test_the_usual_mistake_is_found(model: str, dtype: str, loader: Loader | Chat, check: str, zoo_cache: Path) -> None:
    with closing(red(loader, model, dtype, zoo_cache)) as found:
        assert next(found, "nothing") == check
