"""A chat model that a device map spreads over cards, and inputs that go to where its embedding is."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


class Chat:
    """A model and its tokenizer."""

    def __init__(self, path: str, dtype: torch.dtype, device_map: Any, **options: Any) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, device_map=device_map, local_files_only=True, **options
        ).eval()

    @property
    def input_device(self) -> torch.device:
        """Where inputs belong: beside the embedding, whatever card the map chose for it."""
        return self.model.get_input_embeddings().weight.device

    def generate(self, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        """Greedy new tokens for each prompt."""
        batch = self.tokenizer.pad({"input_ids": prompts}, return_tensors="pt").to(self.input_device)
        with torch.inference_mode():
            output = self.model.generate(
                **batch, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=self.tokenizer.pad_token_id
            )
        return [row.tolist() for row in output[:, batch["input_ids"].shape[1] :]]
