"""Decoding loops of one's own that count, mask or keep the wrong thing."""

from __future__ import annotations

from typing import Any

import torch

from corpus.case import Case
from corpus.generating import Prompts, Served
from pytest_llmdevice import Cell


class Loop(Served):
    """A greedy loop with a cache: positions count the tokens of each row, and the mask grows with them."""

    @torch.inference_mode()
    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        encoded = self.batch(prompts)
        ids, mask = encoded["input_ids"].to(self.device), encoded["attention_mask"].to(self.device)
        output = model(ids, attention_mask=mask, use_cache=True, **self.prefill(mask))
        chosen = [output.logits[:, -1].argmax(-1, keepdim=True)]
        for _ in range(max_new_tokens - 1):
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            output = model(
                chosen[-1],
                attention_mask=self.visible(mask),
                past_key_values=self.kept(output.past_key_values),
                **self.step(mask),
            )
            chosen.append(output.logits[:, -1].argmax(-1, keepdim=True))
        return torch.cat(chosen, dim=1).tolist()

    def prefill(self, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"position_ids": (mask.cumsum(-1) - 1).masked_fill(mask == 0, 0)}

    def step(self, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"position_ids": mask.sum(-1, keepdim=True) - 1}

    def visible(self, mask: torch.Tensor) -> torch.Tensor:
        return mask

    def kept(self, cache: Any) -> Any:
        return cache


class ColumnsAsPositions(Loop):
    """Gives no positions: the model counts columns, padding included."""

    def prefill(self, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {}

    def step(self, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {}


class ColumnsInPrefill(Loop):
    """The prompt is numbered by columns, new tokens by the tokens of their row."""

    def prefill(self, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"position_ids": torch.arange(mask.shape[1], device=mask.device).expand_as(mask)}


class ColumnsInSteps(Loop):
    """The caller's positions are used for the prompt and dropped afterwards."""

    def step(self, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {}


class LastPositionAgain(Loop):
    """The first new token gets the position of the prompt's last one, and all others follow it."""

    def step(self, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"position_ids": mask.sum(-1, keepdim=True) - 2}


class MaskInPrefillOnly(Loop):
    """The padding is masked while the prompt is read, and seen by every new token."""

    def visible(self, mask: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(mask)


class HistoryInHalf(Loop):
    """Keeps the history in float16 to save memory, whatever the model computes in."""

    def kept(self, cache: Any) -> Any:
        for layer in cache.layers:
            layer.keys = layer.keys.half().to(layer.keys.dtype)
            layer.values = layer.values.half().to(layer.values.dtype)
        return cache


class HistoryInBfloat16(Loop):
    """Allocates its history in bfloat16 and lets the new rows be promoted beside it."""

    def kept(self, cache: Any) -> Any:
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys.bfloat16(), layer.values.bfloat16()
        return cache


class HistoryOnOneCard(Loop):
    """Puts the history of all layers on the card of the embedding."""

    def kept(self, cache: Any) -> Any:
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys.to(self.device), layer.values.to(self.device)
        return cache


class HistoryWithoutReset(Served):
    """Keeps the cache of the last request, so that a conversation need not be read again, and never empties it."""

    reset = False

    def load(self, checkpoint: str, cell: Cell) -> Any:
        self.cache = None
        return super().load(checkpoint, cell)

    @torch.inference_mode()
    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        rows = []
        for prompt in prompts:
            if self.reset:
                self.cache = None
            given, row = torch.tensor([prompt], device=self.device), []
            for _ in range(max_new_tokens):
                output = model(given, past_key_values=self.cache, use_cache=True)
                self.cache, given = output.past_key_values, output.logits[:, -1:].argmax(-1)
                row.append(int(given))
            rows.append(row)
        return rows


class HistoryPerRequest(HistoryWithoutReset):
    reset = True


class SortedAndNotPutBack(Served):
    """Sorts the prompts by length to pad less, and returns the rows as they come."""

    put_back = False

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))
        inputs = self.batch([prompts[number] for number in order])
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        rows = [row[inputs["input_ids"].shape[1] :] for row in output.tolist()]
        if self.put_back:
            rows = [rows[order.index(number)] for number in range(len(prompts))]
        return rows


class SortedAndPutBack(SortedAndNotPutBack):
    put_back = True


class BeamsNotReordered(Served):
    """A model class with a `_reorder_cache` that does nothing, since its cache has another name."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = super().load(checkpoint, cell)
        model._reorder_cache = self.reorder
        return model

    @staticmethod
    def reorder(cache: Any, beams: torch.Tensor) -> Any:  # noqa: ARG004
        return cache


class BeamsReordered(BeamsNotReordered):
    @staticmethod
    def reorder(cache: Any, beams: torch.Tensor) -> Any:
        cache.reorder_cache(beams)
        return cache


def _case(
    family: str, name: str, source: str, story: str, buggy: Any, fixed: Any, *cells: Cell, machine: str = ""
) -> Case:
    source = f"https://github.com/{source}"
    return Case(name, family, source, story, buggy, fixed, cells, machine)


class PositionsCountedInHalf(Loop):
    """Counts the positions of a prompt in the model's dtype, and makes integers of them afterwards."""

    counted = torch.bfloat16

    def prefill(self, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        positions = (mask.to(self.counted).cumsum(-1) - 1).masked_fill(mask == 0, 0)
        return {"position_ids": positions.long()}


class PositionsCountedExactly(PositionsCountedInHalf):
    counted = torch.long


class HistoryRounded(Loop):
    """Keeps the history in a few steps, as a quantized cache does, for a model that was asked for in float32."""

    steps = 7

    def kept(self, cache: Any) -> Any:
        for layer in cache.layers:
            layer.keys, layer.values = self.rounded(layer.keys), self.rounded(layer.values)
        return cache

    def rounded(self, states: torch.Tensor) -> torch.Tensor:
        scale = states.abs().amax(dim=-1, keepdim=True).clamp(min=1e-6) / self.steps
        return (states / scale).round() * scale


class HistoryExact(HistoryRounded):
    def rounded(self, states: torch.Tensor) -> torch.Tensor:
        return states


CASES = (
    _case(
        "positions",
        "prompt-counted-in-half",
        "oarriaga/paz/pull/415",
        "the loop counts the positions of a prompt in bfloat16: right up to 256 tokens",
        PositionsCountedInHalf,
        PositionsCountedExactly,
        Cell("llama", "cpu", "float32"),
        Cell("gpt2", "cpu", "bfloat16"),
    ),
    _case(
        "cache",
        "history-rounded",
        "TheTom/llama-cpp-turboquant/issues/305",
        "the history is rounded to a few steps: short answers stay right, and what they are chosen from is not",
        HistoryRounded,
        HistoryExact,
        Cell("qwen3", "cpu", "float32"),
    ),
    _case(
        "positions",
        "columns-as-positions",
        "ndif-team/nnsight/pull/673",
        "a left-padded batch is run without position ids: learned positions count the padding",
        ColumnsAsPositions,
        Loop,
        Cell("gpt2", "cpu", "float32"),
    ),
    _case(
        "positions",
        "columns-as-positions-in-prefill",
        "unslothai/unsloth/pull/4100",
        "the prompt is numbered by columns, new tokens by the tokens of their row",
        ColumnsInPrefill,
        Loop,
        Cell("llama", "cpu", "bfloat16"),
    ),
    _case(
        "positions",
        "positions-dropped-after-prefill",
        "thu-nics/C2C/pull/19",
        "position ids are given for the prompt and not for the new tokens, which jump ahead by the padding",
        ColumnsInSteps,
        Loop,
        Cell("qwen3", "cpu", "float32"),
    ),
    _case(
        "positions",
        "position-repeated",
        "google/gemma.cpp/issues/665",
        "the first new token gets the position of the prompt's last one",
        LastPositionAgain,
        Loop,
        Cell("mistral", "cpu", "float32"),
        Cell("llama", "cuda:1", "float16", simulated=True),
        machine="cuda:2",
    ),
    _case(
        "padding",
        "mask-in-prefill-only",
        "OpenNMT/OpenNMT-py/pull/2532",
        "padding is masked while the prompt is read, and seen by each new token",
        MaskInPrefillOnly,
        Loop,
        Cell("qwen2", "cpu", "float32"),
    ),
    _case(
        "cache",
        "history-through-half",
        "jagmarques/nexusquant/pull/10",
        "the history of a float32 model goes through float16",
        HistoryInHalf,
        Loop,
        Cell("llama", "cpu", "float32"),
    ),
    _case(
        "cache",
        "history-in-bfloat16",
        "meta-pytorch/torchtune/issues/1349",
        "the history of a float32 model is kept in bfloat16",
        HistoryInBfloat16,
        Loop,
        Cell("qwen3-moe", "cpu", "float32"),
    ),
    _case(
        "cache",
        "history-on-one-card",
        "huggingface/transformers/issues/32624",
        "the history of all layers is on the first card, half of the layers on the second",
        HistoryOnOneCard,
        Loop,
        Cell("llama", "cuda:0", "bfloat16", strategy="split", simulated=True),
        machine="cuda:2",
    ),
    _case(
        "cache",
        "history-without-reset",
        "MemTensor/MemOS/issues/2301",
        "the cache of one request is the beginning of the next",
        HistoryWithoutReset,
        HistoryPerRequest,
        Cell("llama", "cpu", "float16"),
    ),
    _case(
        "cache",
        "sorted-and-not-put-back",
        "vllm-project/vllm/issues/394",
        "prompts are sorted by their length, and the rows returned in that order",
        SortedAndNotPutBack,
        SortedAndPutBack,
        Cell("deepseek-v3", "cpu", "float32"),
    ),
    _case(
        "cache",
        "beams-not-reordered",
        "huggingface/transformers/issues/46612",
        "the cache does not follow the beams that were kept",
        BeamsNotReordered,
        BeamsReordered,
        Cell("llama", "cpu", "float32"),
    ),
)
