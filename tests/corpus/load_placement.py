"""Loaders that put the model, or a part of it, on another device than was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from pytest_llmdevice import Cell


def read(checkpoint: str, cell: Cell, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype, **options)


@dataclass
class Mover:
    """Moves to `"cuda"`, which is the current card, where a card was named."""

    index: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        device = cell.torch_device
        return read(checkpoint, cell).to(device if self.index else device.type).eval()


@dataclass
class ByNumber:
    """Has its cards as numbers. `if gpu:` is false for the first one."""

    careful: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        gpu = cell.torch_device.index
        has = gpu is not None if self.careful else bool(gpu)
        return read(checkpoint, cell).to(f"cuda:{gpu}" if has else "cpu").eval()


@dataclass
class Mapped:
    """Has a device map for every load with a card."""

    choose: str

    def load(self, checkpoint: str, cell: Cell) -> Any:
        maps = {"auto": "auto", "first": {"": 0}, "asked": {"": cell.device}}
        return read(checkpoint, cell, device_map=maps[self.choose]).eval()


@dataclass
class Picks:
    """Picks its device the way many scripts do, and looks at what was asked for afterwards, or never."""

    rule: str

    def load(self, checkpoint: str, cell: Cell) -> Any:
        return read(checkpoint, cell).to(self.device(cell)).eval()

    def device(self, cell: Cell) -> str:
        if self.rule == "card if there is one":
            return "cuda" if torch.cuda.is_available() else "cpu"
        if self.rule == "nvidia only":
            return cell.device if torch.version.cuda is not None else "cpu"
        if self.rule == "cuda by name":
            return cell.device if cell.device.startswith("cuda") else "cpu"
        return cell.device


@dataclass
class Remembers:
    """An engine that is made once and asked for several models. Its device is that of the first one."""

    forgets: bool
    device: torch.device | None = field(default=None)

    def load(self, checkpoint: str, cell: Cell) -> Any:
        if self.device is None or self.forgets:
            self.device = cell.torch_device
        return read(checkpoint, cell).to(self.device).eval()


@dataclass
class MovedAgain:
    """Spreads the model over the cards, and calls `.cuda()` on it, as the script did when it had one card."""

    again: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = read(checkpoint, cell, device_map="balanced")
        return model.cuda().eval() if self.again else model.eval()


@dataclass
class Piecewise:
    """Moves the model piece by piece, for as little memory as possible, and has a list of the pieces."""

    pieces: tuple[str, ...]

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = read(checkpoint, cell)
        for name in self.pieces:
            piece = model.get_submodule(name)
            for part in piece if isinstance(piece, nn.ModuleList) else (piece,):
                part.to(cell.torch_device)
        return model.eval()


@dataclass
class Stale:
    """A map of parameters that was written for two cards by hand."""

    tied: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        first, second = cell.device, f"cuda:{1 - cell.index}"
        places = {
            "transformer.wte": first,
            "transformer.wpe": first,
            "transformer.drop": first,
            "transformer.h.0": first,
            "transformer.h.1": second,
            "transformer.ln_f": second,
            "lm_head": first if self.tied else second,
        }
        model = read(checkpoint, cell, device_map=places)
        if not self.tied:
            model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().to(second))
        return model.eval()


@dataclass
class WithoutHooks:
    """Puts the second half of the layers on the second card, and leaves the way there to nobody."""

    hooks: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        second = f"cuda:{1 - cell.index}"
        if self.hooks:
            places = {"model.embed_tokens": cell.device, "model.rotary_emb": cell.device, "model.norm": second}
            places |= {"model.layers.0": cell.device, "model.layers.1": second, "lm_head": second}
            return read(checkpoint, cell, device_map=places).eval()
        model = read(checkpoint, cell).to(cell.torch_device)
        for part in (*model.model.layers[1:], model.model.norm, model.lm_head):
            part.to(second)
        return model.eval()


class Scaled(nn.Module):
    """A final norm with a scale for each channel, such as activation-aware quantization leaves behind."""

    def __init__(self, norm: nn.Module, scale: torch.Tensor, *, buffer: bool) -> None:
        super().__init__()
        self.norm = norm
        if buffer:
            self.register_buffer("scale", scale, persistent=False)
        else:
            self.scale = scale

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.norm(hidden) * self.scale


@dataclass
class ScalesNorm:
    """Adds the scales before it moves the model."""

    buffer: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = read(checkpoint, cell)
        model.model.norm = Scaled(
            model.model.norm, torch.ones(model.config.hidden_size, dtype=cell.torch_dtype), buffer=self.buffer
        )
        return model.to(cell.torch_device).eval()


@dataclass
class EmptyFirst:
    """Makes an empty model and reads the file into it. The head is not in the file: it is the embedding."""

    ties: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        from accelerate import init_empty_weights, load_checkpoint_in_model

        with init_empty_weights():
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(checkpoint), dtype=cell.torch_dtype)
        load_checkpoint_in_model(model, checkpoint, device_map={"": cell.device}, dtype=cell.torch_dtype)
        if self.ties:
            model.tie_weights()
        for module in model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(cell.torch_device))
        model.generation_config = GenerationConfig.from_pretrained(checkpoint)
        return model.eval()


@dataclass
class Offloads:
    """Offloads by a limit of memory. A model that fits into the limit is not offloaded at all."""

    limit: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        if self.limit:
            return read(checkpoint, cell, device_map="auto", max_memory={cell.index: "8GiB", "cpu": "8GiB"}).eval()
        places: dict[str, Any] = {"model.embed_tokens": cell.index, "model.norm": cell.index, "lm_head": cell.index}
        places |= {"model.rotary_emb": cell.index, "model.layers.0": cell.index, "model.layers.1": "cpu"}
        return read(checkpoint, cell, device_map=places).eval()
