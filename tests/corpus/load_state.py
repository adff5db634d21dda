"""Loaders that change the process, or that the process changes."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from pytest_llmdevice import Cell


def read(checkpoint: str, cell: Cell, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype, **options).eval()


@dataclass
class Visible:
    """Chooses the card with CUDA_VISIBLE_DEVICES, for everyone who comes later too."""

    sets: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        if self.sets:
            os.environ["CUDA_VISIBLE_DEVICES"] = str(cell.torch_device.index or 0)
        return read(checkpoint, cell).to(cell.torch_device)


@dataclass
class Default:
    """Has the model made in the right dtype, or on the right device, by changing the default."""

    what: str
    restores: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        dtype = torch.get_default_dtype()
        if self.what == "dtype":
            torch.set_default_dtype(cell.torch_dtype)
        else:
            torch.set_default_device(cell.torch_device)
        try:
            model = read(checkpoint, cell)
        finally:
            if self.restores and self.what == "dtype":
                torch.set_default_dtype(dtype)
            elif self.restores:
                torch.set_default_device(None)
        return model.to(cell.torch_device)


@dataclass
class Current:
    """Makes the card the current one, so that `.cuda()` will do."""

    restores: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        if self.restores:
            with torch.cuda.device(cell.torch_device):
                return read(checkpoint, cell).cuda()
        torch.cuda.set_device(cell.torch_device)
        return read(checkpoint, cell).cuda()


@dataclass
class SkipsInitialization:
    """Replaces PyTorch's initializers while the skeleton is made, because its values are not needed."""

    restores: bool
    names: ClassVar[tuple[str, ...]] = ("kaiming_uniform_", "uniform_", "normal_")

    def load(self, checkpoint: str, cell: Cell) -> Any:
        own = {name: getattr(nn.init, name) for name in self.names}
        for name in self.names:
            setattr(nn.init, name, lambda tensor, *_, **__: tensor)
        try:
            return read(checkpoint, cell).to(cell.torch_device)
        finally:
            if self.restores:
                for name, function in own.items():
                    setattr(nn.init, name, function)


@dataclass
class Kept:
    """Keeps loaded models, by the folder they came from, or by everything that was asked for."""

    by: tuple[str, ...]
    models: dict[Any, Any] = field(default_factory=dict)

    def load(self, checkpoint: str, cell: Cell) -> Any:
        key = (checkpoint, *(getattr(cell, name) for name in self.by))
        if key not in self.models:
            self.models.clear()
            self.models[key] = read(checkpoint, cell).to(cell.torch_device)
        return self.models[key]


@dataclass
class KeptAndMoved:
    """Reads a folder once, and moves what it has, or a copy of it, to the device of each load."""

    copies: bool
    models: dict[str, Any] = field(default_factory=dict)

    def load(self, checkpoint: str, cell: Cell) -> Any:
        if checkpoint not in self.models:
            self.models[checkpoint] = read(checkpoint, cell)
        kept = self.models[checkpoint]
        return (copy.deepcopy(kept) if self.copies else kept).to(cell.torch_device)


@dataclass
class Engines:
    """Has a list of all engines for a status page, with the models in it, or with their names."""

    models_too: bool
    engines: ClassVar[list[Any]] = []

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = read(checkpoint, cell).to(cell.torch_device)
        self.engines.append(model if self.models_too else Path(checkpoint).name)
        return model


@dataclass
class KeptConfiguration:
    """Reads each configuration once, and writes the dtype into it."""

    copies: bool
    configurations: dict[str, Any] = field(default_factory=dict)

    def load(self, checkpoint: str, cell: Cell) -> Any:
        if checkpoint not in self.configurations or self.copies:
            self.configurations[checkpoint] = AutoConfig.from_pretrained(checkpoint)
            self.configurations[checkpoint].dtype = cell.torch_dtype
        config = self.configurations[checkpoint]
        return AutoModelForCausalLM.from_pretrained(checkpoint, config=config, dtype=config.dtype).eval()


@dataclass
class Autocasts:
    """Enters autocast for the warm-up and returns from the middle of it."""

    leaves: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = read(checkpoint, cell).to(cell.torch_device)
        context = torch.autocast(cell.torch_device.type, dtype=torch.bfloat16)
        context.__enter__()
        with torch.no_grad():
            model(torch.ones((1, 2), dtype=torch.long, device=cell.torch_device))
        if self.leaves:
            context.__exit__(None, None, None)
        return model


@dataclass
class Multiplies:
    """Allows fewer digits in float32 matrix products, to be quick, and for the whole process."""

    precision: str

    def load(self, checkpoint: str, cell: Cell) -> Any:
        torch.set_float32_matmul_precision(self.precision)
        return read(checkpoint, cell).to(cell.torch_device)


@dataclass
class Trains:
    """Has the model from the code that trains it."""

    evaluates: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = read(checkpoint, cell).to(cell.torch_device)
        model.train(not self.evaluates)
        return model
