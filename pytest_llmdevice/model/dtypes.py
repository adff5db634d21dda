"""Computes the dtype that transformers gives a tensor: the cell's, or float32 if the model class requires it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


def kept_in_float32(model: nn.Module, name: str, dtype: torch.dtype, quantization: str = "none") -> bool:
    """Whether the tensor `name` stays float32 in a model that is loaded in `dtype`.

    Model classes list such modules in `_keep_in_fp32_modules` (for float16 only, against overflow) and
    `_keep_in_fp32_modules_strict` (for float16 and bfloat16). They are matched by whole components of the name:
    matching by substring kept every `word_embeddings` in float32 because of T5's `wo` (transformers#26589).
    Before transformers 5 the bitsandbytes quantizers applied the first list to bfloat16 too.
    Source: `PreTrainedModel.from_pretrained` and `_should_keep_in_fp32` in transformers' modeling_utils.
    """
    import torch

    if dtype not in (torch.float16, torch.bfloat16):
        return False
    names = set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    if dtype == torch.float16 or (quantization != "none" and _quantizer_keeps_float32()):
        names |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
    components = name.split(".")
    return any(set(entry.split(".")) <= set(components) for entry in names)


def _quantizer_keeps_float32() -> bool:
    from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

    return bool(getattr(Bnb4BitHfQuantizer, "use_keep_in_fp32_modules", False))


def intended_dtype(
    model: nn.Module, name: str, present: torch.dtype, wanted: torch.dtype, quantization: str = "none"
) -> torch.dtype:
    """The dtype of the tensor `name` of `model`, which has the dtype `present`, after a load in `wanted`.

    Integers and booleans keep their dtype.
    """
    import torch

    if not present.is_floating_point:
        return present
    return torch.float32 if kept_in_float32(model, name, wanted, quantization) else wanted
