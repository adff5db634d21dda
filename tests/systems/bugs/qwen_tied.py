"""Qwen1.5-0.5B: inputs on the first card, and the embedding, which is the head, on the last."""

from __future__ import annotations

from typing import Any

import torch
from chat.llm_target import ChatTarget
from chat.model import Chat
from transformers import AutoConfig

from pytest_llmdevice import Cell


class ToCuda(Chat):
    """Inputs go to `"cuda"`, the first card, as the model's page said."""

    @property
    def input_device(self) -> torch.device:
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


class LastCard(ChatTarget):
    """`device_map="auto"` as it was then: layers over all cards, the head on the last, and what is tied to it too."""

    def device_map(self, checkpoint: str, cell: Cell) -> Any:
        if cell.strategy != "auto" or cell.kind == "cpu":
            return super().device_map(checkpoint, cell)
        config = AutoConfig.from_pretrained(checkpoint, local_files_only=True)
        last = torch.cuda.device_count() - 1
        embedding = last if config.tie_word_embeddings else 0
        layers = {f"model.layers.{i}": min(i, last) for i in range(config.num_hidden_layers)}
        return {
            "model.embed_tokens": embedding,
            "model.rotary_emb": 0,
            **layers,
            "model.norm": last,
            "lm_head": last,
        }


class ToCudaTarget(LastCard):
    """The bug."""

    chat = ToCuda


class OneCardTarget(ToCudaTarget):
    """The fix `device_map={"": "cuda:0"}`: the inputs go where they went."""

    def device_map(self, checkpoint: str, cell: Cell) -> Any:
        return {"": "cuda:0"}


class PartedTarget(ChatTarget):
    """The embedding on the first card, and the head, though tied to it, a copy on the last."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = super().load(checkpoint, cell)
        last = f"cuda:{torch.cuda.device_count() - 1}"
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().to(last))
        return model
