"""Unpacks the weights of bitsandbytes, and says whether one was packed yet.

The functions change neither the model nor the packed weights.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def is_8_bit(weight: Any) -> bool:
    """Whether the weight, of bitsandbytes' class for 8 bits, was packed."""
    return not weight.is_floating_point()


def is_4_bit(weight: Any) -> bool:
    """Whether the weight, of bitsandbytes' class for 4 bits, was packed: into any dtype, bytes by default."""
    return not weight.is_floating_point() or getattr(weight, "quant_state", None) is not None


def from_8_bit(module: Any, weight: Any) -> torch.Tensor | None:
    """The values of an 8-bit weight, in float32 on the CPU; None without its scales."""
    # The first forward pass moves the scale from the weight to the module's state.
    state = getattr(module, "state", None)
    scales = (getattr(owner, "SCB", None) for owner in (weight, state))
    scale = next((scale for scale in scales if scale is not None), None)
    if scale is None:
        return None
    values: torch.Tensor = weight.data.cpu().float() * (scale.cpu().float().view(-1, 1) / 127)
    return values


def from_4_bit(_: Any, weight: Any) -> torch.Tensor | None:
    """Look up each half byte in the table of the quantization, and multiply it by the scale of its block.

    In float32 on the CPU; None without its quantization state.

    bitsandbytes' own function is not used: on a CPU (0.50) it takes a wrong scale for a block that continues in the
    next row.
    """
    import torch

    state = getattr(weight, "quant_state", None)
    if state is None:
        return None
    data = weight.data.cpu()
    if getattr(state, "packing_format_for_cpu", False):
        data, state = _unpacked_for_cpu(data, state)
    pairs = data.contiguous().view(torch.uint8).flatten()
    codes = torch.stack((pairs >> 4, pairs & 0xF), dim=1).flatten().long()
    scales = _scales(state).repeat_interleave(state.blocksize)
    count = state.shape.numel()
    values: torch.Tensor = (state.code.cpu().float()[codes][:count] * scales[:count]).view(state.shape)
    return values


def _scales(state: Any) -> torch.Tensor:
    """One scale for each block, in float32 on the CPU; with double quantization the scales are quantized too."""
    scales: torch.Tensor = state.absmax.cpu()
    if not state.nested:
        return scales.float()
    inner = state.state2
    outer = inner.absmax.cpu().float().repeat_interleave(inner.blocksize)[: scales.numel()]
    dequantized: torch.Tensor = inner.code.cpu().float()[scales.flatten().long()] * outer + state.offset.cpu().float()
    return dequantized


def _unpacked_for_cpu(data: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
    """Undo, on copies, the repacking that bitsandbytes does in the first forward pass on AVX512-BF16 processors.

    The scales stay as repacked: bfloat16, one for each block and row, without double quantization.
    """
    from bitsandbytes.functional import _convert_weight_packed_for_cpu_inverse

    state = copy(state)
    state.original_nested = False
    data, state = _convert_weight_packed_for_cpu_inverse(data.clone(), state)
    state.absmax = state.absmax.T.reshape(-1).float().contiguous()
    return data, state
