"""Cells of the zoo on simulated machines, and the same cells on the CPU: what the tests of models share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from checkpoints import checkpoint

from pytest_llmdevice import Cell
from pytest_llmdevice.inference.generation import generate
from pytest_llmdevice.inference.prompts import encode, load_tokenizer
from pytest_llmdevice.loading.target import BuiltinTarget

if TYPE_CHECKING:
    from torch import nn

NEW_TOKENS = 4

TWO_DEVICES = "Expected all tensors to be on the same device"

AUTOMATIC = ("auto", "balanced", "sequential")

IGNORED_WARNINGS = (
    # accelerate says so of the cell's own "cpu" and "disk".
    "ignore:Some parameters are on the meta device",
    # The int8 kernels compute in float16, whatever comes in.
    "ignore:MatMul8bitLt",
)


@cache
def tokenizer() -> Any:
    """The one that all families share."""
    return load_tokenizer(checkpoint("llama"))


@cache
def _prompts() -> tuple[tuple[int, ...], ...]:
    return tuple(map(tuple, encode(tokenizer())))


def prompts() -> list[list[int]]:
    """The suite's prompts, of unequal length."""
    return [list(prompt) for prompt in _prompts()]


def load(cell: Cell) -> Any:
    """A model of the caller's own, loaded as the built-in target does."""
    return BuiltinTarget().load(checkpoint(cell.model), cell)


def on_cpu(cell: Cell) -> Cell:
    """The same model, dtype, quantization and attention on the CPU."""
    return replace(cell, device="cpu", kind="", strategy="device-map", simulated=False)


def tokens_on_cpu(cell: Cell) -> list[list[int]]:
    """What the cell generates greedily on the CPU; ask for it outside of a simulation."""
    return _tokens(on_cpu(cell))


@cache
def _tokens(cell: Cell) -> list[list[int]]:
    return tokens(loaded_on_cpu(cell))


@cache
def loaded_on_cpu(cell: Cell) -> Any:
    """The cell on the CPU, for tests that change nothing of it; ask for it outside of a simulation.

    Weights of 4 bits are multiplied as on a card: bitsandbytes' kernel for AVX512-BF16 rounds their scales.
    """
    model = load(on_cpu(cell))
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def tokens(model: Any) -> list[list[int]]:
    """The greedy continuations of the suite's prompts, in one padded batch beside the embedding."""
    return generate(model, prompts(), NEW_TOKENS)


def places(model: nn.Module) -> set[str]:
    """The devices of a model's parameters and buffers."""
    return {str(tensor.device) for tensor in (*model.parameters(), *model.buffers())}


def batch(device: str = "cpu", rows: int = 3) -> dict[str, Any]:
    """The first prompts as a left-padded batch of `input_ids` and `attention_mask`."""
    import torch

    padded: Mapping[str, Any] = tokenizer().pad({"input_ids": prompts()[:rows]}, return_tensors="pt")
    return {name: padded[name].to(torch.device(device)) for name in ("input_ids", "attention_mask")}
