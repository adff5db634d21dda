"""Loaders that lose the dtype, or a part of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from pytest_llmdevice import Cell


class DropsDtype:
    """Takes a dtype and never hands it on."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        return AutoModelForCausalLM.from_pretrained(checkpoint).to(cell.torch_device).eval()


class HandsDtypeOn:
    """The same, with the dtype."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype).to(cell.torch_device).eval()


@dataclass
class Policy:
    """A training framework's policy model, for which half precision is the default."""

    half: bool | None = None

    def load(self, checkpoint: str, cell: Cell) -> Any:
        half = cell.dtype == "float16" if self.half is None else self.half
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float16 if half else cell.torch_dtype)
        return model.to(cell.torch_device).eval()


class Engine:
    """Hands on only keyword arguments of a list that was written before `torch_dtype` became `dtype`."""

    known: tuple[str, ...] = ("torch_dtype", "device_map", "attn_implementation", "trust_remote_code")

    def load(self, checkpoint: str, cell: Cell, **extra: Any) -> Any:
        wanted = {"dtype": cell.torch_dtype, "device_map": {"": cell.device}, **extra}
        kwargs = {key: value for key, value in wanted.items() if key in self.known}
        return AutoModelForCausalLM.from_pretrained(checkpoint, **kwargs).eval()


class EngineAfterTheRename(Engine):
    known = (*Engine.known, "dtype")


@dataclass
class Chat:
    """A chat program that knows best: float32 wherever there is no card."""

    knows_best: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        dtype = cell.torch_dtype
        if self.knows_best and cell.torch_device.type == "cpu" and dtype in {torch.float16, torch.bfloat16}:
            dtype = torch.float32
        return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype).to(cell.torch_device).eval()


@dataclass
class Registry:
    """Options of a model in a registry; the dtype is taken out of them for a log message."""

    pops: bool
    options: dict[str, Any] = field(default_factory=dict)

    def load(self, checkpoint: str, cell: Cell) -> Any:
        self.options = {"dtype": cell.torch_dtype, "low_cpu_mem_usage": True}
        shown = self.options.pop("dtype") if self.pops else self.options["dtype"]
        self.log = f"loading {checkpoint} in {shown}"
        model = AutoModelForCausalLM.from_pretrained(checkpoint, config=self.config(checkpoint), **self.options)
        return model.to(cell.torch_device).eval()

    def config(self, checkpoint: str) -> Any:
        config = AutoConfig.from_pretrained(checkpoint)
        config.use_cache = True
        return config


def trainable_in_float32(model: nn.Module, parts: tuple[str, ...]) -> nn.Module:
    """What `prepare_model_for_kbit_training` does, left in on the way to inference."""
    for name, parameter in model.named_parameters():
        if any(part in name for part in parts):
            parameter.data = parameter.data.to(torch.float32)
    return model


@dataclass
class Tuned:
    """A fine-tuned model, served by the code that trained it."""

    upcast: tuple[str, ...]
    undo: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype).to(cell.torch_device)
        was = {name: parameter.dtype for name, parameter in model.named_parameters()}
        trainable_in_float32(model, self.upcast)
        if self.undo:
            for name, parameter in model.named_parameters():
                parameter.data = parameter.data.to(was[name])
        return model.eval()


@dataclass
class Routers:
    """Takes the routers of a mixture of experts from the checkpoint again, as float32 `nn.Parameter`s."""

    cast: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype)
        stored = load_file(f"{checkpoint}/model.safetensors")
        for name, module in model.named_modules():
            if name.endswith(".gate") and f"{name}.weight" in stored:
                weight = stored[f"{name}.weight"]
                module.weight = nn.Parameter(weight.to(cell.torch_dtype) if self.cast else weight)
        return model.to(cell.torch_device).eval()


@dataclass
class SharedExperts:
    """Experts that another process read in float32 are written over those of this one."""

    cast: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        store = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="auto").state_dict()
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype).to(cell.torch_device)
        for name, parameter in model.named_parameters():
            if ".experts." in name:
                held = store[name].to(cell.torch_device)
                parameter.data = held.to(parameter.dtype) if self.cast else held
        return model.eval()


@dataclass
class PaddedVocabulary:
    """Pads the head to a multiple of 64 rows, in a new layer. Whoever makes a layer says its dtype, or gets float32."""

    keeps: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype).to(cell.torch_device)
        old = model.get_output_embeddings().weight
        rows = -(-old.shape[0] // 64) * 64
        made = nn.Linear(old.shape[1], rows, bias=False, device=old.device, dtype=old.dtype if self.keeps else None)
        made.weight.data[: old.shape[0]] = old.data
        model.set_output_embeddings(made)
        return model.eval()


@dataclass
class ThroughHalf:
    """Reads every model in float16 to save memory, and casts to what was asked for."""

    first: torch.dtype | None

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=self.first or cell.torch_dtype)
        for parameter in model.parameters():
            parameter.data = parameter.data.to(cell.torch_dtype)
        model.config.dtype = cell.torch_dtype
        return model.to(cell.torch_device).eval()


@dataclass
class KeepsInFloat32:
    """Casts by hand, and keeps what the class wants kept: by name, or by what the name contains."""

    substring: bool
    kept: tuple[str, ...] = ("wo",)

    def load(self, checkpoint: str, cell: Cell) -> Any:
        auto = AutoModelForSeq2SeqLM if cell.model == "t5" else AutoModelForCausalLM
        model = auto.from_pretrained(checkpoint, dtype=torch.float32)
        for name, parameter in model.named_parameters():
            if not self.keep(name):
                parameter.data = parameter.data.to(cell.torch_dtype)
        model.config.dtype = cell.torch_dtype
        return model.to(cell.torch_device).eval()

    def keep(self, name: str) -> bool:
        if self.substring:
            return any(part in name for part in self.kept)
        return bool(set(self.kept) & set(name.split(".")))


@dataclass
class Skeleton:
    """An empty skeleton, filled by accelerate."""

    told: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        from accelerate import init_empty_weights, load_checkpoint_and_dispatch

        config = AutoConfig.from_pretrained(checkpoint)
        dtype = cell.torch_dtype if self.told else None
        with init_empty_weights():
            model = AutoModelForCausalLM.from_config(config, **({"dtype": dtype} if dtype else {}))
        model.tie_weights()
        model = load_checkpoint_and_dispatch(model, checkpoint, device_map={"": cell.device}, dtype=dtype)
        return model.eval()


@dataclass
class TellsAnother:
    """Has the configuration say what exports of this project are in. What reads it (caches, exports) believes it."""

    exports: torch.dtype | None

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype)
        model.config.dtype = self.exports or cell.torch_dtype
        return model.to(cell.torch_device).eval()
