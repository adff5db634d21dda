"""Layers of eight and of four bits without a library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class EightBits(nn.Module):
    """A byte for each number, a scale for each row."""

    levels = 127
    codes: torch.Tensor
    scales: torch.Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scales = weight.abs().amax(dim=1, keepdim=True) / self.levels
        self.register_buffer("codes", (weight / scales).round().to(torch.int8))
        self.register_buffer("scales", scales)

    def dequantize(self) -> torch.Tensor:
        """The weight, in float32."""
        return self.codes.float() * self.scales

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """What the layer gave, with the packed weight."""
        return functional.linear(inputs, self.dequantize().to(inputs.dtype))


class FourBits(EightBits):
    """The same with sixteen levels, of which it uses fifteen."""

    levels = 7


PACKERS: Mapping[str, Any] = {"eight": EightBits, "four": FourBits}


def packed(model: Any, modules: Mapping[str, str]) -> Any:
    """`model` with the layers whose names end as the keys of `modules` packed as the values say."""
    for name, module in list(model.named_modules()):
        kind = next((kind for end, kind in modules.items() if name.endswith(end)), None)
        if kind is not None and isinstance(module, nn.Linear):
            path, _, key = name.rpartition(".")
            setattr(model.get_submodule(path), key, PACKERS[kind](module))
    return model
