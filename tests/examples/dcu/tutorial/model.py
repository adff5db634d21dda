"""Loading and generating as a tutorial for DCU cards shows it: half precision or 4 bit, batches, turns, monitors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig


class DeviceUnavailableError(RuntimeError):
    """There is no card, or PyTorch was not built for it."""


def require_card() -> str:
    """The name of the first card. A DCU is a ROCm device: `torch.version.hip` is set, its type is still `cuda`.

    Raises:
        DeviceUnavailableError: there is none.
    """
    if not torch.cuda.is_available() or torch.cuda.device_count() == 0:
        raise DeviceUnavailableError("no card is visible; look with hy-smi")
    if torch.version.hip is None:
        raise DeviceUnavailableError("this PyTorch is not built for ROCm")
    return torch.cuda.get_device_name(0)


def four_bit(compute: torch.dtype) -> BitsAndBytesConfig:
    """nf4 with double quantization, computing in `compute`."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def load_model(path: str, dtype: torch.dtype, quantization: BitsAndBytesConfig | None = None) -> Any:
    """Load the model in `path` on the cards."""
    require_card()
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, device_map="auto", quantization_config=quantization, local_files_only=True
    )
    return model.eval()


def batch(model: Any, prompts: list[list[int]], pad: int, longest: int = 512, side: str = "left") -> dict[str, Any]:
    """Prompts as one batch beside the embedding: cut to `longest` tokens, padded on the left, where nothing follows."""
    rows = [prompt[-longest:] for prompt in prompts]
    width = max(map(len, rows))
    ids, mask = [], []
    for row in rows:
        gap, ones = width - len(row), [1] * len(row)
        ids.append([pad] * gap + row if side == "left" else row + [pad] * gap)
        mask.append([0] * gap + ones if side == "left" else ones + [0] * gap)
    device = model.get_input_embeddings().weight.device
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}


def generate(model: Any, inputs: dict[str, Any], new: int, **sampling: Any) -> list[list[int]]:
    """New tokens for each row; greedy unless `sampling` says how to choose."""
    options = {"do_sample": True, **sampling} if sampling else {"do_sample": False}
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=new, pad_token_id=model.config.pad_token_id or 0, **options)
    return [row.tolist() for row in output[:, inputs["input_ids"].shape[1] :]]


class Conversation:
    """Turns of one conversation, with the cache carried over from each to the next."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._device = model.get_input_embeddings().weight.device
        self._history = torch.empty(1, 0, dtype=torch.long, device=self._device)
        self._cache: Any = None

    def say(self, tokens: list[int], new: int) -> list[int]:
        """Add a turn of the user, return that of the model."""
        turn = torch.tensor([tokens], device=self._device)
        history = torch.cat([self._history, turn], dim=1)
        output = self._model.generate(
            history,
            attention_mask=torch.ones_like(history),
            past_key_values=self._cache,
            max_new_tokens=new,
            do_sample=False,
            return_dict_in_generate=True,
            pad_token_id=self._model.config.pad_token_id or 0,
        )
        self._history, self._cache = output.sequences, output.past_key_values
        return output.sequences[0, history.shape[1] :].tolist()


@dataclass
class Monitor:
    """What a block took: seconds between two synchronizations, bytes held at its end and at most."""

    seconds: float = 0.0
    allocated: int = 0
    peak: int = 0


@contextmanager
def monitored() -> Iterator[Monitor]:
    """Monitor what is done inside."""
    found = Monitor()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    started = time.perf_counter()
    yield found
    torch.cuda.synchronize()
    found.seconds = time.perf_counter() - started
    found.allocated, found.peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
