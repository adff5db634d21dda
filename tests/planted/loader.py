"""A loader as people write one: what `faults` plants its lines in. Every line that is replaced occurs here once."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

from pytest_llmdevice import Cell

PAD = 0
KEPT: list[Any] = []


def load(checkpoint: str, cell: Cell) -> Any:
    dtype = cell.torch_dtype
    device = cell.torch_device
    config = AutoConfig.from_pretrained(checkpoint)
    options: dict[str, Any] = {}
    if cell.quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
        )
        options["device_map"] = {"": device}
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, config=config, dtype=dtype, **options)
    if not options:
        model = model.to(device)
    model = model.eval()
    return model  # noqa: RET504  # a line by itself, to be written otherwise


def generate(model: Any, prompts: list[list[int]], max_new_tokens: int) -> Any:
    device = model.get_input_embeddings().weight.device
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": max_new_tokens}
    ids, mask = ids.to(device), mask.to(device)
    with torch.no_grad():
        output = model.generate(input_ids=ids, attention_mask=mask, pad_token_id=PAD, **options)
    rows = output[:, width:].tolist()
    return rows  # noqa: RET504
