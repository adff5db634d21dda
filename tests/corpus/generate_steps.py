"""Loops that take a prompt in steps: chunks, drafts, kept prefixes, hooks for each step."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import DynamicCache

from corpus.case import Case
from corpus.generating import Prompts, Served, new_tokens
from pytest_llmdevice import Cell


class Rows(Served):
    """Generates row by row, greedily; `row` is what a subclass has."""

    @torch.inference_mode()
    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        return [self.row(model, torch.tensor([prompt], device=self.device), max_new_tokens) for prompt in prompts]

    def row(self, model: Any, ids: torch.Tensor, count: int) -> list[int]:
        raise NotImplementedError

    def decode(self, model: Any, logits: torch.Tensor, cache: Any, length: int, count: int) -> list[int]:
        tokens: list[int] = []
        while True:
            token = logits[:, -1].argmax(-1, keepdim=True)
            tokens.append(int(token))
            if len(tokens) == count:
                return tokens
            where = torch.tensor([[length]], device=self.device)
            logits = model(token, past_key_values=cache, position_ids=where, use_cache=True).logits
            length += 1


class ChunksCountedTwice(Rows):
    """Takes the prompt in chunks of eight; the offset has been added by the counter already."""

    twice = True

    def row(self, model: Any, ids: torch.Tensor, count: int) -> list[int]:
        cache, done, start = DynamicCache(config=model.config), 0, 0
        for start in range(0, ids.shape[1], 8):
            chunk = ids[:, start : start + 8]
            first = done + start if self.twice else done
            where = torch.arange(first, first + chunk.shape[1], device=self.device)[None]
            logits = model(chunk, past_key_values=cache, position_ids=where, use_cache=True).logits
            done += chunk.shape[1]
        return self.decode(model, logits, cache, done, count)


class ChunksCountedOnce(ChunksCountedTwice):
    twice = False


class PrefixHandedOut(Rows):
    """Keeps the states of each prompt, and hands out what it keeps: the next answer is appended to it."""

    copies = False

    def load(self, checkpoint: str, cell: Cell) -> Any:
        self.kept: dict[tuple[int, ...], Any] = {}
        return super().load(checkpoint, cell)

    def row(self, model: Any, ids: torch.Tensor, count: int) -> list[int]:
        prompt = tuple(ids[0].tolist())
        if prompt not in self.kept:
            cache = DynamicCache(config=model.config)
            self.kept[prompt] = (model(ids, past_key_values=cache, use_cache=True).logits[:, -1:], cache)
        logits, cache = self.kept[prompt]
        # Positions go on where the states end.
        if self.copies:
            cache = copy.deepcopy(cache)
        return self.decode(model, logits, cache, cache.get_seq_length(), count)


class PrefixCopied(PrefixHandedOut):
    copies = True


class DraftsKept(Rows):
    """Tries the last token again as a draft; a state that cannot be cut keeps the draft that was wrong."""

    restores = False

    def row(self, model: Any, ids: torch.Tensor, count: int) -> list[int]:
        output = model(ids, use_cache=True)
        tokens = [int(output.logits[0, -1].argmax())]
        state = self.state(output)
        while len(tokens) < count:
            output = self.step(model, tokens[-1], state)
            state, right = self.state(output), int(output.logits[0, -1].argmax())
            # The draft goes in before it is known whether it is right.
            before = copy.deepcopy(state) if self.restores else state
            drafted = self.step(model, tokens[-1], state)
            accepted = right == tokens[-1]
            tokens.append(right)
            if accepted:
                tokens.append(int(drafted.logits[0, -1].argmax()))
            state = self.state(drafted) if accepted else before
        return tokens[:count]

    @staticmethod
    def state(output: Any) -> Any:
        return getattr(output, "cache_params", None) or output.past_key_values

    def step(self, model: Any, token: int, state: Any) -> Any:
        ids = torch.tensor([[token]], device=self.device)
        return model(ids, cache_params=state, use_cache=True)


class DraftsTakenBack(DraftsKept):
    restores = True


class PaddedAlone(Served):
    """Pads each row to a multiple of 32, and masks padding only where there is more than one row."""

    pads = True

    @torch.inference_mode()
    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        rows = []
        for prompt in prompts:
            width = -len(prompt) % 32 if self.pads else 0
            ids = torch.tensor([[model.config.pad_token_id] * width + prompt], device=self.device)
            output = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, do_sample=False
            )
            rows += new_tokens(output, ids.shape[1])
        return rows


class NeverPadded(PaddedAlone):
    pads = False


def watch(module: Any, given: Any, output: Any) -> None:
    """Sees each answer pass."""


class HooksPileUp(Served):
    """Watches each answer by a hook, and removes the last one only."""

    removes_all = False

    @torch.inference_mode()
    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        handles, rows = [], []
        for prompt in prompts:
            handles.append(model.register_forward_hook(watch))
            ids = torch.tensor([prompt], device=self.device)
            output = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, do_sample=False
            )
            rows += new_tokens(output, ids.shape[1])
        for handle in handles if self.removes_all else handles[-1:]:
            handle.remove()
        return rows


class HooksRemoved(HooksPileUp):
    removes_all = True


class WindowInclusive(Rows):
    """Makes its own mask, without states; the window's bounds are inclusive in the kernel that it was written for."""

    extra = 1

    def row(self, model: Any, ids: torch.Tensor, count: int) -> list[int]:
        width = ids.shape[1]
        for _ in range(count):
            length = ids.shape[1]
            apart = torch.arange(length)[:, None] - torch.arange(length)[None]
            seen = (apart >= 0) & (apart < model.config.sliding_window + self.extra)
            mask = torch.zeros(seen.shape, dtype=model.dtype).masked_fill(~seen, torch.finfo(model.dtype).min)
            logits = model(ids, attention_mask=mask[None, None].to(self.device), use_cache=False).logits
            ids = torch.cat([ids, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
        return new_tokens(ids, width)[0]


class WindowExclusive(WindowInclusive):
    extra = 0


class NoRepeats(Served):
    """Generates with settings that an older library had as defaults."""

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        inputs = {name: tensor.to(self.device) for name, tensor in self.batch(prompts).items()}
        options = self.options(max_new_tokens)
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, **options)
        return new_tokens(output, inputs["input_ids"].shape[1])

    def options(self, most: int) -> dict[str, Any]:
        return {"no_repeat_ngram_size": 3}


class LongAnswers(NoRepeats):
    def options(self, most: int) -> dict[str, Any]:
        return {"min_new_tokens": min(50, most)}


class NoSettings(NoRepeats):
    def options(self, most: int) -> dict[str, Any]:
        return {}


def _case(name: str, source: str, story: str, buggy: Any, fixed: Any, *cells: Cell, missed: str = "") -> Case:
    return Case(name, "steps", f"https://github.com/{source}", story, buggy, fixed, cells, missed=missed)


CASES = (
    _case(
        "chunks-counted-twice",
        "mlx-node/mlx-node/pull/33",
        "the positions of a chunk get their offset twice, from the second chunk on",
        ChunksCountedTwice,
        ChunksCountedOnce,
        Cell("llama", "cpu", "float32"),
    ),
    _case(
        "prefix-handed-out",
        "MemTensor/MemOS/pull/2303",
        "the kept states of a prompt are handed out themselves, and grow with each answer",
        PrefixHandedOut,
        PrefixCopied,
        Cell("qwen2", "cpu", "float32"),
    ),
    _case(
        "drafts-kept-in-the-state",
        "ml-explore/mlx-lm/pull/1109",
        "a recurrent state cannot be cut, and keeps the drafts that were rejected",
        DraftsKept,
        DraftsTakenBack,
        Cell("mamba", "cpu", "float32"),
    ),
    _case(
        "padding-of-a-single-row",
        "huggingface/transformers/pull/46773",
        "padding is masked in batches only: a single padded row runs it through the state",
        PaddedAlone,
        NeverPadded,
        Cell("mamba", "cpu", "float32"),
    ),
    _case(
        "hooks-pile-up",
        "huggingface/peft/pull/2761",
        "a hook is added for each answer, and only the last one is removed",
        HooksPileUp,
        HooksRemoved,
        Cell("llama", "cpu", "bfloat16"),
    ),
    _case(
        "window-one-too-wide",
        "NVIDIA-NeMo/Megatron-Bridge/pull/2656",
        "the window's bounds are inclusive in the kernel: each token sees one more",
        WindowInclusive,
        WindowExclusive,
        Cell("mistral", "cpu", "float32"),
    ),
    _case(
        "no-repeats-by-default",
        "guillaume-be/rust-bert/pull/165",
        "no three tokens may come twice, by a default that nobody asked for",
        NoRepeats,
        NoSettings,
        Cell("gpt2", "cpu", "float32"),
    ),
    _case(
        "long-answers-by-default",
        "huggingface/transformers/issues/5674",
        "a default length of 50 keeps the end token from being chosen",
        LongAnswers,
        NoSettings,
        Cell("qwen2", "cpu", "bfloat16"),
    ),
)
