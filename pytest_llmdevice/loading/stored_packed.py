"""Knows checkpoints that are quantized by themselves, by their configuration and what their files hold."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.errors import DoesNotApply
from pytest_llmdevice.loading.adapters import base_of
from pytest_llmdevice.model.doors import few_bits

if TYPE_CHECKING:
    import torch
    from torch import nn


def stored_method(checkpoint: str) -> str:
    """The `quant_method` in the configuration of `checkpoint`, by which weights are packed; empty for dense ones."""
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
    """Those of `modules`, linear layers and stacks of experts by their names in the architecture, that the files pack.

    There is no dense weight of their name, and integers or floats of a byte are under it. Empty for a checkpoint that
    is dense.
    """
    if not stored_method(checkpoint):
        return frozenset()
    stored = stored_tensors(checkpoint)
    below = {
        name[:end]
        for name, tensor in stored.items()
        if few_bits(tensor.dtype)
        for end in (place for place, sign in enumerate(name) if sign == ".")
    }

    def dense(name: str) -> bool:
        weight = stored.get(f"{name}.weight")
        return weight is not None and not few_bits(weight.dtype)

    return frozenset(name for name in modules if name in below and not dense(name))


def unpacked_load(checkpoint: str, dtype: str) -> tuple[nn.Module, str]:
    """The model of a checkpoint that is quantized by itself, with dense weights, on the cpu in `dtype`.

    Its weights are those that the library computes with: a forward pass has it unpack what it unpacks by itself, and
    what stays packed is read by handing the layer an identity matrix. The second value is the dtype in which that was
    done: `dtype`, or that of the checkpoint where the library unpacks into no other (FP8 in transformers 5.23, which
    leaves a float32 model with weights in bfloat16 that does not run).
    """
    import torch

    from pytest_llmdevice.loading.pretrained import auto_class, configuration

    packed, done = running_load(checkpoint, dtype)
    config = configuration(checkpoint)
    for holder in {id(part): part for part in (config, config.get_text_config())}.values():
        if hasattr(holder, "quantization_config"):
            del holder.quantization_config
    dense: Any = auto_class(config).from_config(
        config, dtype=getattr(torch, dtype), attn_implementation="eager", trust_remote_code=False
    )
    with torch.no_grad():
        _fill(dense, packed)
    dense.tie_weights()
    return dense.eval(), done


def running_load(checkpoint: str, dtype: str) -> tuple[Any, str]:
    """A plain load on the cpu that has run once, and its dtype: `dtype`, or the checkpoint's where that cannot run."""
    import torch

    from pytest_llmdevice.loading.pretrained import configuration, from_pretrained
    from pytest_llmdevice.matrix.cell import Cell
    from pytest_llmdevice.matrix.vocabulary import dtype_name

    own = getattr(configuration(checkpoint), "dtype", None)
    own = dtype_name(own) if isinstance(own, torch.dtype) else "bfloat16"
    for tried in dict.fromkeys((dtype, own)):
        model: Any = from_pretrained(checkpoint, Cell("plain", "cpu", tried))
        ids = torch.zeros(1, 1, dtype=torch.long)
        given = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
        try:
            with torch.no_grad():
                model(input_ids=ids, **given)
        except RuntimeError:
            if tried == own:
                raise
            continue
        return model, tried
    raise AssertionError("the last one has returned or raised")


def _fill(dense: nn.Module, packed: nn.Module) -> None:
    """Give `dense` the numbers that `packed` computes with."""
    from torch import nn

    there = dict(packed.named_parameters(remove_duplicate=False)) | dict(packed.named_buffers(remove_duplicate=False))
    for name, module in dense.named_modules():
        for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            own = there.get(f"{name}.{key}" if name else key)
            if own is not None and own.shape == tensor.shape and own.is_floating_point() and own.itemsize > 1:
                tensor.copy_(own)
            elif isinstance(module, nn.Linear) and key == "weight":
                tensor.copy_(_by_identity(packed.get_submodule(name), module.in_features, tensor.dtype))
            elif type(module).__name__ == "Conv1D" and key == "weight":
                # GPT-2's linear layer, whose weight is the other way round.
                tensor.copy_(_by_identity(packed.get_submodule(name), tensor.shape[0], tensor.dtype).T)
            elif isinstance(tensor, nn.Parameter):
                kind = type(packed.get_submodule(name)).__name__
                raise DoesNotApply(f"{name}.{key} of the checkpoint is packed in a {kind}, which nothing here unpacks")


def _by_identity(layer: nn.Module, features: int, dtype: torch.dtype) -> torch.Tensor:
    """The weight of `layer`, of shape (outputs, inputs), by what it makes of an identity matrix."""
    import torch

    answer: torch.Tensor = layer(torch.eye(features, dtype=dtype))
    bias = getattr(layer, "bias", None)
    return (answer if bias is None else answer - bias).T
