"""Which dtype transformers itself would give a tensor: the cell's, or float32 where a model class insists."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


def kept_in_float32(model: nn.Module, name: str, dtype: torch.dtype) -> bool:
    """Whether `name` stays float32 in a model that is loaded in `dtype`.

    The lists are `_keep_in_fp32_modules` (float16 only, it is there against overflow) and
    `_keep_in_fp32_modules_strict` (both halves), matched by whole components of the name: matching by
    substring kept every `word_embeddings` in float32 because of T5's `wo` (transformers#26589).
    Source: `PreTrainedModel.from_pretrained` and `_should_keep_in_fp32` in transformers' modeling_utils.
    """
    import torch

    if dtype not in (torch.float16, torch.bfloat16):
        return False
    names = set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    if dtype == torch.float16:
        names |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
    components = name.split(".")
    return any(set(entry.split(".")) <= set(components) for entry in names)


def intended_dtype(model: nn.Module, name: str, present: torch.dtype, wanted: torch.dtype) -> torch.dtype:
    """The dtype for the tensor `name` of `model`, now in `present`, when the model is loaded in `wanted`.

    Integers and booleans stay as they are.
    """
    import torch

    if not present.is_floating_point:
        return present
    return torch.float32 if kept_in_float32(model, name, wanted) else wanted
