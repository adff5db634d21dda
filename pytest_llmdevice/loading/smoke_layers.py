"""Tries a quantization on one linear layer, and computes what a dense layer makes of the same inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch
    from torch import nn

WIDTH: Final = 64
"""Features in and out: a multiple of the blocks and groups that kernels ask for."""


def tried(
    quantize: Callable[[nn.Sequential], object],
    device: torch.device,
    dtype_name: str,
    stored: str,
    width: int = WIDTH,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a linear layer makes of random inputs on `device` after `quantize`, and what it should, in float64.

    Args:
        quantize: packs the one layer of the model that it is given.
        device: where.
        dtype_name: of weights and inputs, without `torch.`.
        stored: the dtype of the packed numbers: a layer that silently stayed dense would pass with a perfect result.
        width: features in and out.

    Raises:
        TypeError: the weight is kept in another dtype afterwards.
    """
    import torch

    from pytest_llmdevice.model.packing import packing

    dtype: torch.dtype = getattr(torch, dtype_name)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(width, width, generator=generator).to(dtype)
    inputs = torch.randn(8, width, generator=generator).to(dtype)
    model: Any = torch.nn.Sequential(torch.nn.Linear(width, width, bias=False, dtype=dtype))
    model.load_state_dict({"0.weight": weight})
    model = model.to(device).eval().requires_grad_(requires_grad=False)
    quantize(model)
    found = packing(model[0], "weight", weight.numel())
    if found is None or found.dtype != stored:
        raise TypeError(f"the weight is {found or 'dense'} after quantization, not torch.{stored}")
    with torch.no_grad():
        return model(inputs.to(device)), inputs.double() @ weight.double().T


def untried(device: torch.device, dtype_name: str) -> tuple[torch.Tensor, torch.Tensor, float]:
    """A sum on `device`, for a quantization whose table in a matrix file names nothing to try."""
    import torch

    ones = torch.ones(8, dtype=getattr(torch, dtype_name), device=device)
    return ones.sum(), torch.tensor(8.0, dtype=torch.float64), 1e-3
