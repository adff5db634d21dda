"""A quantization of a project's own: each row of a linear weight as bytes with one scale, without any library."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoModelForCausalLM


class ByteLinear(nn.Module):
    """A linear layer whose weight is `codes * scales`."""

    codes: torch.Tensor
    scales: torch.Tensor

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        scales = weight.abs().amax(dim=1, keepdim=True).float() / 127
        self.register_buffer("codes", (weight.float() / scales).round().to(torch.int8))
        self.register_buffer("scales", scales.to(weight.dtype))

    def unpacked(self) -> torch.Tensor:
        """The weight, of shape (out, in), in the dtype of the scales."""
        return self.codes.to(self.scales.dtype) * self.scales

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """What `nn.Linear` gives, with the packed weight."""
        return functional.linear(inputs, self.unpacked())


def unpacked(module, _weight):
    """The values of a packed layer."""
    return module.unpacked()


def try_a_layer(device, dtype):
    """One layer on `device`: its result, the exact one, and how far apart they may be."""
    torch.manual_seed(0)
    weight, inputs = (torch.randn(rows, 64).to(getattr(torch, dtype)) for rows in (64, 8))
    layer = ByteLinear(weight).to(device)
    return layer(inputs.to(device)), inputs.double() @ weight.double().T, 0.05


class Loader:
    """A target that packs all linear layers but the head."""

    skipped: tuple[str, ...] = ()

    def load(self, checkpoint, cell):
        """Load `checkpoint`, and pack it where the cell asks for it."""
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype)
        for name, module in list(model.named_modules()):
            if cell.quantization == "none" or not isinstance(module, nn.Linear) or module is model.lm_head:
                continue
            if not name.endswith(self.skipped or ("no layer",)):
                path, _, key = name.rpartition(".")
                setattr(model.get_submodule(path), key, ByteLinear(module.weight.detach()))
        return model.to(cell.device).eval()


class Forgetful(Loader):
    """The same with a fault: it leaves some layers dense."""

    skipped = ("down_proj",)


class Eager(Loader):
    """The same with another fault: it packs cells that ask for none."""

    def load(self, checkpoint, cell):
        """Load `checkpoint`, packed whatever the cell says."""
        from dataclasses import replace

        return super().load(checkpoint, replace(cell, quantization="bytes"))


loader, forgetful, eager = Loader(), Forgetful(), Eager()
