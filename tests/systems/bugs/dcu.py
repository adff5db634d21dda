"""The failures that a tutorial for DCU cards warns of, and those that its recipes leave room for."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from tutorial import llm_target, model

from pytest_llmdevice import Cell


class PadsOnTheRight:
    """Batches padded on the right: new tokens follow the padding."""

    load = staticmethod(llm_target.load)

    def generate(self, loaded: Any, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        return model.generate(loaded, model.batch(loaded, prompts, pad=0, side="right"), max_new_tokens)


class ForgetsTheMask:
    """Batches padded on the left, and no mask: a model attends to the padding."""

    load = staticmethod(llm_target.load)

    def generate(self, loaded: Any, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        inputs = model.batch(loaded, prompts, pad=0)
        inputs["attention_mask"] = torch.ones_like(inputs["attention_mask"])
        return model.generate(loaded, inputs, max_new_tokens)


class ComputesInFloat32:
    """nf4 with no compute dtype: bitsandbytes takes float32."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
        return model.load_model(checkpoint, cell.torch_dtype, config)


class QuantizesOnce:
    """nf4 without double quantization."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        config = model.four_bit(cell.torch_dtype)
        config.bnb_4bit_use_double_quant = False
        return model.load_model(checkpoint, cell.torch_dtype, config)


class HalfForAll:
    """float16 whatever was asked for."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        return model.load_model(checkpoint, torch.float16)


class OnlyCuda:
    """A loader that takes a card for one of NVIDIA's, and the CPU where there is none of those."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        device = "cuda:0" if torch.cuda.is_available() and torch.version.hip is None else "cpu"
        return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype, device_map=device).eval()
