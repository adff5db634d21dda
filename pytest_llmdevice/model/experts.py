"""Finds the weights of experts that a module keeps as one tensor, of three dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


def expert_stacks(name: str, module: nn.Module) -> dict[str, torch.Tensor]:
    """The stacks of expert weights that `module`, called `name`, itself has, by their names in it."""
    from torch import nn

    if (
        isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
        or "expert" not in f"{type(module).__name__} {name}".lower()
    ):
        return {}
    return {key: tensor for key, tensor in module.named_parameters(recurse=False) if tensor.ndim == 3}
