"""IBench: a quantized model's inputs stayed on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from bench.local_model import LocalModel, LocalModelTarget


class Unmoved(LocalModel):
    """Moves inputs `if device == "cuda" and not quantized`."""

    def place(self, inputs: dict[str, Any]) -> dict[str, Any]:
        if self.device.startswith("cuda") and not self.quantized:
            return {key: value.to(self.device) for key, value in inputs.items()}
        return inputs


class UnmovedByHand(Unmoved):
    """The same, decoding with calls of the model: no `generate` of transformers moves the inputs after all."""

    def generate(self, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        inputs = self.place(dict(self.tokenizer.pad({"input_ids": prompts}, return_tensors="pt")))
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        with torch.inference_mode():
            for _ in range(max_new_tokens):
                logits = self.model(input_ids=ids, attention_mask=mask).logits
                ids = torch.cat([ids, logits[:, -1:].argmax(-1).to(ids.device)], dim=1)
                mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        return [row.tolist() for row in ids[:, inputs["input_ids"].shape[1] :]]


class UnmovedTarget(LocalModelTarget):
    """The bug."""

    local_model = Unmoved


class UnmovedByHandTarget(LocalModelTarget):
    """The bug, loud."""

    local_model = UnmovedByHand
