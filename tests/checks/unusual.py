"""Right targets that do what few do: masks of their own, packing, arrays, heads of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from pytest_llmdevice import BuiltinTarget, Cell
from pytest_llmdevice.inference.generation import batch, generate
from pytest_llmdevice.model.device_map import embedding_device

Prompts = Sequence[Sequence[int]]
Generate = Callable[[Any, Prompts, int], Any]


class Target(BuiltinTarget):
    """Loads as the built-in target does, and generates with a function of one's own."""

    def __init__(self, function: Generate = generate, change: Callable[[Any], Any] = lambda model: model) -> None:
        self._function, self._change = function, change

    def load(self, checkpoint: str, cell: Cell) -> Any:
        return self._change(super().load(checkpoint, cell))

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Any:
        return self._function(model, prompts, max_new_tokens)


def plain(model: Any, prompts: Prompts, count: int) -> Any:
    """transformers' own generation as it comes: one rectangle of ids, filled up behind an end token."""
    given = batch(prompts, pad=256, device=embedding_device(model))
    output = model.generate(**given, max_new_tokens=count, do_sample=False, pad_token_id=256)
    return output[:, given["input_ids"].shape[1] :]


def as_lists(model: Any, prompts: Prompts, count: int) -> list[list[int]]:
    rows: list[list[int]] = plain(model, prompts, count).tolist()
    return rows


def as_array(model: Any, prompts: Prompts, count: int) -> Any:
    return plain(model, prompts, count).cpu().numpy()


def without_filling(model: Any, prompts: Prompts, count: int) -> list[list[int]]:
    end = model.generation_config.eos_token_id
    rows = as_lists(model, prompts, count)
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


def ignored_filling(model: Any, prompts: Prompts, count: int) -> list[list[int]]:
    """Filled up with what a loss ignores."""
    return [[*row, *[-100] * (count - len(row))] for row in without_filling(model, prompts, count)]


def under_autocast(model: Any, prompts: Prompts, count: int) -> list[list[int]]:
    device = embedding_device(model)
    with torch.autocast(device.type, dtype=model.dtype):
        return as_lists(model, prompts, count)


@torch.inference_mode()
def packed(model: Any, prompts: Prompts, count: int) -> list[list[int]]:
    """All prompts in one row, each of which sees itself only; read anew at each step."""
    rows = [list(prompt) for prompt in prompts]
    new: list[list[int]] = [[] for _ in prompts]
    device = embedding_device(model)
    for _ in range(count):
        owner = torch.tensor([number for number, row in enumerate(rows) for _ in row], device=device)
        seen = (owner[:, None] == owner[None]) & torch.ones(len(owner), len(owner), device=device).tril().bool()
        mask = torch.zeros(1, 1, *seen.shape, dtype=model.dtype, device=device)
        positions = torch.tensor([[at for row in rows for at in range(len(row))]], device=device)
        logits = model(
            torch.tensor([[token for row in rows for token in row]], device=device),
            attention_mask=mask.masked_fill(~seen, torch.finfo(model.dtype).min),
            position_ids=positions,
            use_cache=False,
        ).logits[0]
        ends = torch.tensor([len(row) for row in rows]).cumsum(0) - 1
        for row, found, end in zip(rows, new, ends.tolist(), strict=True):
            found.append(int(logits[end].argmax()))
            row.append(found[-1])
    return new


@torch.inference_mode()
def with_masks(model: Any, prompts: Prompts, count: int) -> list[list[int]]:
    """Masks of four dimensions, those of sliding layers too, as a mapping where the model has both kinds of layers."""
    given = batch(prompts, pad=256, device=embedding_device(model))
    ids, real = given["input_ids"], given["attention_mask"]
    window = getattr(model.config, "sliding_window", None)
    kinds = set(getattr(model.config, "layer_types", None) or ())
    new = []
    for _ in range(count):
        at = torch.arange(ids.shape[1], device=ids.device)
        back = at[:, None] - at[None]
        full = ((back >= 0) & real[:, None].bool()) | (back == 0)
        near = full if window is None else full & (back < window)
        masks = {"full_attention": added(full, model.dtype), "sliding_attention": added(near, model.dtype)}
        step = model(
            input_ids=ids,
            attention_mask=masks if len(kinds) > 1 else added(near, model.dtype),
            position_ids=(real.cumsum(-1) - 1).clamp(min=0),
            use_cache=False,
        ).logits[:, -1:]
        new.append(step.argmax(-1))
        ids = torch.cat([ids, new[-1]], dim=1)
        real = torch.cat([real, torch.ones_like(new[-1])], dim=1)
    rows: list[list[int]] = torch.cat(new, dim=1).tolist()
    return rows


def added(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`seen`, of shape (batch, tokens, tokens), as what is added to scores."""
    zeros = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return zeros.masked_fill(~seen, torch.finfo(dtype).min)[:, None]


class OwnHead(nn.Module):
    """The body of a model of transformers, and its head, in a class of one's own."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.model, self.lm_head, self.config = whole.model, whole.lm_head, whole.config

    def forward(self, input_ids: torch.Tensor, **options: Any) -> CausalLMOutputWithPast:
        found = self.model(input_ids=input_ids, **options)
        logits = self.lm_head(found.last_hidden_state)
        return CausalLMOutputWithPast(logits=logits, past_key_values=found.past_key_values)


@torch.inference_mode()
def one_by_one(model: Any, prompts: Prompts, count: int) -> list[list[int]]:
    new = []
    for prompt in prompts:
        ids = torch.tensor([list(prompt)], device=embedding_device(model))
        for _ in range(count):
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
        new.append(ids[0, len(prompt) :].tolist())
    return new


CHUNK = 8


@torch.no_grad()
def in_chunks(model: Any, prompts: Prompts, count: int, *, window_of_a_chunk: bool = False) -> list[list[int]]:
    """Reads each prompt in chunks, and then token by token, with positions and masks of four dimensions of its own."""
    return [_in_chunks(model, list(prompt), count, window_of_a_chunk) for prompt in prompts]


def _in_chunks(model: Any, prompt: list[int], count: int, window_of_a_chunk: bool) -> list[int]:
    config, device = model.config, embedding_device(model)
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    cache, at, new = DynamicCache(), 0, list[int]()
    pieces = [prompt[start : start + CHUNK] for start in range(0, len(prompt), CHUNK)]
    while len(new) < count:
        piece = pieces.pop(0) if pieces else new[-1:]
        queries = torch.arange(at, at + len(piece), device=device)[:, None]
        keys = torch.arange(at + len(piece), device=device)[None]
        full = keys <= queries
        # The wrong way: all tokens of a chunk have the window of its first one.
        near = full & (keys > (queries[:1] if window_of_a_chunk else queries) - window) if window else full
        masks = {"full_attention": added(full[None], model.dtype), "sliding_attention": added(near[None], model.dtype)}
        logits = model(
            torch.tensor([piece], device=device),
            attention_mask=masks if len(kinds) > 1 else added(near[None], model.dtype),
            position_ids=queries.T,
            past_key_values=cache,
            use_cache=True,
        ).logits
        at += len(piece)
        if not pieces:
            new.append(int(logits[0, -1].argmax()))
    return new


@torch.no_grad()
def padded_on_the_right(model: Any, prompts: Prompts, count: int) -> list[list[int]]:
    """Forward passes over batches that are padded on the right, with positions that stand still over padding."""
    rows, new = [list(prompt) for prompt in prompts], [list[int]() for _ in prompts]
    for _ in range(count):
        given = batch(rows, pad=256, device=embedding_device(model), left=False)
        positions = given["attention_mask"].cumsum(-1) - 1
        logits = model(**given, position_ids=positions, use_cache=False).logits
        for at, (row, found) in enumerate(zip(rows, new, strict=True)):
            found.append(int(logits[at, len(row) - 1].argmax()))
            row.append(found[-1])
    return new
