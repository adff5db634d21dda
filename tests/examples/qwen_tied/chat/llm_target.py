"""The chat as a target of pytest-llmdevice: a device map for each strategy of the matrix `qwen-tied`."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from typing import Any

import torch
from transformers import AutoConfig

from chat.model import Chat
from pytest_llmdevice import Cell


class ChatTarget:
    """Makes a chat for a cell and keeps it beside the model that it hands out."""

    chat = Chat

    def __init__(self) -> None:
        self._chat: Chat | None = None

    def device_map(self, checkpoint: str, cell: Cell) -> Any:
        """What to give to `from_pretrained`: accelerate's word for it, or a map of the decoder's layers."""
        if cell.strategy in {"auto", "balanced", "sequential"}:
            return cell.strategy
        if cell.strategy == "device-map":
            return {"": cell.device}
        layers = AutoConfig.from_pretrained(checkpoint, local_files_only=True).num_hidden_layers
        later = "disk" if cell.strategy == "disk-offload" else f"cuda:{(cell.index + 1) % torch.cuda.device_count()}"
        ends = dict.fromkeys(("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"), cell.device)
        return ends | {f"model.layers.{i}": cell.device if i < layers // 2 else later for i in range(layers)}

    def load(self, checkpoint: str, cell: Cell) -> Any:
        """Load `checkpoint` as `cell` asks."""
        options: dict[str, Any] = {}
        if cell.strategy == "disk-offload":
            options["offload_folder"] = tempfile.mkdtemp(prefix="chat-")
            weakref.finalize(self, shutil.rmtree, options["offload_folder"], ignore_errors=True)
        elif cell.kind == "cpu" and cell.strategy != "device-map":
            # Told to stay there: with a card in the machine, a map of accelerate's own would prefer the card.
            options["max_memory"] = {"cpu": "64GiB"}
        self._chat = self.chat(checkpoint, cell.torch_dtype, self.device_map(checkpoint, cell), **options)
        return self._chat.model

    def generate(self, model: Any, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        """Generate with the chat that `model` came from."""
        assert self._chat is not None
        assert self._chat.model is model
        return self._chat.generate(prompts, max_new_tokens)
