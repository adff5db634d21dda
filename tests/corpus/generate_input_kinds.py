"""Inputs that change on the way to the model: their dtype, or which tensor a name means."""

from __future__ import annotations

from typing import Any

import torch

from corpus.case import Case
from corpus.generating import Prompts, Served, new_tokens
from pytest_llmdevice import Cell


class EverythingCast(Served):
    """One dtype for the whole batch, token ids included."""

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        inputs = {name: self.cast(tensor.to(model.device), model.dtype) for name, tensor in self.batch(prompts).items()}
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        return new_tokens(output, inputs["input_ids"].shape[1])

    def cast(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return tensor.to(dtype)


class OnlyFloatsCast(EverythingCast):
    def cast(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor


class EmptySystemPrompt(Served):
    """Puts a system prompt in front; an empty one becomes a float tensor, and with it the ids."""

    dtype = None

    @torch.inference_mode()
    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        system = torch.tensor([[]], dtype=self.dtype, device=model.device)
        rows = []
        for prompt in prompts:
            ids = torch.cat([system, torch.tensor([prompt], device=model.device)], dim=1)
            output = model.generate(ids, max_new_tokens=max_new_tokens, do_sample=False)
            rows += new_tokens(output, ids.shape[1])
        return rows


class EmptyIntegers(EmptySystemPrompt):
    dtype = torch.long


class BoundBeforeTheMove(Served):
    """Remembers the ids before it moves them, and appends the new ones to those."""

    rebind = False

    @torch.inference_mode()
    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        rows = []
        for prompt in prompts:
            tokens = given = torch.tensor([prompt])
            given = given.to(self.device)
            if self.rebind:
                tokens = given
            for _ in range(max_new_tokens):
                tokens = torch.cat([tokens, model(given).logits[:, -1:].argmax(-1)], dim=1)
                given = tokens
            rows += new_tokens(tokens, len(prompt))
        return rows


class BoundAfterTheMove(BoundBeforeTheMove):
    rebind = True


class EmbeddedInFloat32(Served):
    """A soft prompt's embeddings are computed in float32 and handed to a half model as they are."""

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        inputs = {name: tensor.to(model.device) for name, tensor in self.batch(prompts).items()}
        table = model.get_input_embeddings().weight
        embeds = torch.nn.functional.embedding(inputs["input_ids"], table.float())
        output = model.generate(
            inputs_embeds=self.cast(embeds, table.dtype),
            attention_mask=inputs["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        return output.tolist()

    def cast(self, embeds: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return embeds


class EmbeddedInTheModelsDtype(EmbeddedInFloat32):
    def cast(self, embeds: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return embeds.to(dtype)


def _case(name: str, source: str, story: str, buggy: Any, fixed: Any, *cells: Cell, machine: str = "") -> Case:
    source = f"https://github.com/{source}"
    return Case(name, "inputs", source, story, buggy, fixed, cells, machine)


CASES = (
    _case(
        "ids-cast-to-half",
        "deepspeedai/DeepSpeed/issues/5701",
        "every tensor of the batch is cast to the model's dtype, token ids too",
        EverythingCast,
        OnlyFloatsCast,
        Cell("gemma3", "cpu", "bfloat16"),
    ),
    _case(
        "ids-promoted-to-float",
        "huggingface/transformers/issues/38417",
        "an empty system prompt is a float tensor, and joined with it the ids become floats",
        EmptySystemPrompt,
        EmptyIntegers,
        Cell("llama", "cpu", "float32"),
    ),
    _case(
        "ids-bound-before-the-move",
        "TransformerLensOrg/TransformerLens/issues/1508",
        "new tokens, on the card, are appended to the ids from before the move",
        BoundBeforeTheMove,
        BoundAfterTheMove,
        Cell("gpt2", "cuda:0", "float32", simulated=True),
        machine="cuda",
    ),
    _case(
        "embeddings-in-float32",
        "OpenGVLab/InternVL/issues/602",
        "embedded inputs are float32, the model is bfloat16",
        EmbeddedInFloat32,
        EmbeddedInTheModelsDtype,
        Cell("qwen2", "cpu", "bfloat16"),
    ),
)
