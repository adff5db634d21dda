"""The tutorial's code as a target of pytest-llmdevice."""

from __future__ import annotations

from typing import Any

from pytest_llmdevice import Cell
from tutorial import model as tutorial


def load(checkpoint: str, cell: Cell) -> Any:
    """Load `checkpoint` as `cell` asks."""
    quantization = tutorial.four_bit(cell.torch_dtype) if cell.quantization == "nf4-double" else None
    return tutorial.load_model(checkpoint, cell.torch_dtype, quantization)


def generate(model: Any, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
    """Greedy new tokens for the padded batch."""
    return tutorial.generate(model, tutorial.batch(model, prompts, pad=model.config.pad_token_id or 0), max_new_tokens)
