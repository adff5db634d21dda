"""Knows checkpoints that are quantized by themselves: their configuration says how, and their files hold packed weights."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.loading.adapters import base_of

if TYPE_CHECKING:
    import torch
    from torch import nn

DEQUANTIZED: Final[Mapping[str, str]] = {"fp8": "FineGrainedFP8Config", "mxfp4": "Mxfp4Config"}
"""Methods that transformers computes with kernels of the hub, and can unpack while it loads -> the class that says so
(`dequantize`, in `utils/quantization_config.py` of 5.23)."""


def stored_method(checkpoint: str) -> str:
    """How the weights in the files of `checkpoint` are packed: the `quant_method` of its configuration; empty for dense."""
    path = Path(base_of(checkpoint)) / "config.json"
    try:
        said = json.loads(path.read_text("utf-8")).get("quantization_config") or {}
    except (OSError, ValueError):
        return ""
    return str(said.get("quant_method", "")) if isinstance(said, dict) else ""


def stored_tensors(checkpoint: str) -> dict[str, torch.Tensor]:
    """The tensors in the files of `checkpoint`, by their names there."""
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = {}
    for path in sorted(Path(base_of(checkpoint)).glob("*.safetensors")):
        found |= load_file(path)
    return found


def stored_packed(checkpoint: str, modules: Iterable[str]) -> frozenset[str]:
    """Those of the linear `modules`, by their names in the architecture, whose weight is packed in the files.

    There is no weight of their name, or it is in integers or floats of a byte; empty for a checkpoint that is dense.
    """
    if not stored_method(checkpoint):
        return frozenset()
    stored = stored_tensors(checkpoint)
    kept = {name.rpartition(".")[0] for name in stored}

    def dense(name: str) -> bool:
        weight = stored.get(f"{name}.weight")
        return weight is not None and weight.is_floating_point() and weight.itemsize > 1

    return frozenset(name for name in modules if name in kept and not dense(name))


def unpacked_load(checkpoint: str, dtype: str) -> nn.Module:
    """The model of a checkpoint that is quantized by itself, with dense weights, on the cpu in `dtype`.

    Its weights are those that the library computes with: a forward pass has it unpack what it unpacks by itself, and
    what stays packed is read by handing the layer an identity matrix.
    """
    import torch
    from torch import nn

    from pytest_llmdevice.loading.pretrained import auto_class, configuration, from_pretrained
    from pytest_llmdevice.matrix.cell import Cell

    packed: Any = from_pretrained(checkpoint, Cell("plain", "cpu", dtype))
    config = configuration(checkpoint)
    for holder in (config, getattr(config, "text_config", None)):
        if hasattr(holder, "quantization_config"):
            del holder.quantization_config
    dense: Any = auto_class(config).from_config(
        config, dtype=getattr(torch, dtype), attn_implementation="eager", trust_remote_code=False
    )
    with torch.no_grad():
        packed(input_ids=torch.zeros(1, 1, dtype=torch.long))
        there = dict(packed.named_parameters(remove_duplicate=False)) | dict(
            packed.named_buffers(remove_duplicate=False)
        )
        for name, module in dense.named_modules():
            for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                own = there.get(f"{name}.{key}" if name else key)
                if own is not None and own.shape == tensor.shape and own.is_floating_point() and own.itemsize > 1:
                    tensor.copy_(own)
                elif isinstance(module, nn.Linear) and key == "weight":
                    tensor.copy_(_by_identity(packed.get_submodule(name), module.in_features, tensor.dtype))
    dense.tie_weights()
    return dense.eval()  # type: ignore[no-any-return]


def _by_identity(layer: nn.Module, features: int, dtype: torch.dtype) -> torch.Tensor:
    import torch

    answer: torch.Tensor = layer(torch.eye(features, dtype=dtype))
    bias = getattr(layer, "bias", None)
    return (answer if bias is None else answer - bias).T
