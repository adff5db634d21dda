"""A local model that loads in 4 bit, 8 bit or half precision, and moves its inputs to where the model is."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from pytest_llmdevice import Cell


class LocalModel:
    """A model and its tokenizer, with one `generate` for every way of loading."""

    def __init__(
        self, path: str, device: str, dtype: torch.dtype, *, bits: int | None = None, device_map: Any = None
    ) -> None:
        self.device = device
        self.quantized = bits is not None
        self.tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, padding_side="left")
        options: dict[str, Any] = {"dtype": dtype, "device_map": device_map}
        if bits == 4:
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
            )
        elif bits == 8:
            options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
        self.model = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, **options)
        if device_map is None:
            self.model.to(device)
        self.model.eval()

    def place(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Put the tensors of `inputs` beside the model; other values stay as they are."""
        if self.quantized:
            try:
                device = next(self.model.parameters()).device
            except StopIteration:
                return inputs
        elif self.device.startswith("cuda"):
            device = torch.device(self.device)
        else:
            return inputs
        return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in inputs.items()}

    def generate(self, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        """Greedy new tokens for each prompt."""
        batch = self.tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
        inputs = self.place(dict(batch))
        output = self.model.generate(
            **inputs, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=self.tokenizer.pad_token_id
        )
        return [row.tolist() for row in output[:, inputs["input_ids"].shape[1] :]]


class LocalModelTarget:
    """The class above as a target: it keeps the wrapper beside the model that it hands out."""

    local_model = LocalModel

    def __init__(self) -> None:
        self._wrapper: LocalModel | None = None

    def load(self, checkpoint: str, cell: Cell) -> Any:
        """Load `checkpoint` as `cell` asks."""
        bits = {"int8": 8, "nf4": 4}.get(cell.quantization)
        mapped: Any = {"device-map": {"": cell.device}, "auto": "auto"}.get(cell.strategy)
        self._wrapper = self.local_model(checkpoint, cell.device, cell.torch_dtype, bits=bits, device_map=mapped)
        return self._wrapper.model

    def generate(self, model: Any, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        """Generate with the wrapper that `model` came from."""
        assert self._wrapper is not None
        assert self._wrapper.model is model
        return self._wrapper.generate(prompts, max_new_tokens)
