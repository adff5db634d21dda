"""Loaders whose tensors have the right names, shapes, dtypes and devices, and other numbers in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from pytest_llmdevice import Cell


def plain(checkpoint: str, cell: Cell, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype, **options).to(cell.torch_device)


@dataclass
class GuessesSettings:
    """Makes a configuration of its own from what it knows of the architecture."""

    known: dict[str, Any]

    def load(self, checkpoint: str, cell: Cell) -> Any:
        config = AutoConfig.from_pretrained(checkpoint)
        for name, value in self.known.items():
            setattr(config, name, value)
        return plain(checkpoint, cell, config=config).eval()


@dataclass
class CastsAll:
    """Loads, then casts the whole model: rotary frequencies too."""

    late: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        if not self.late:
            return plain(checkpoint, cell).eval()
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
        return model.to(cell.torch_device, cell.torch_dtype).eval()


@dataclass
class RepairsTooLate:
    """Casts everything and then makes the rotary frequencies float32 again, from what the cast left of them."""

    late: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
        exact = {name: buffer.clone() for name, buffer in model.named_buffers()}
        model = model.to(cell.torch_device, cell.torch_dtype)
        for name, buffer in model.named_buffers():
            if name.endswith("inv_freq"):
                buffer.data = buffer.data.float() if self.late else exact[name].to(buffer.device)
        model.config.dtype = cell.torch_dtype
        return model.eval()


@dataclass
class Materialized:
    """Makes the model on the meta device, gives it memory, and reads the weights. Nobody computes the buffers."""

    buffers_too: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        config = AutoConfig.from_pretrained(checkpoint)
        model = AutoModelForCausalLM.from_config(config, dtype=cell.torch_dtype)
        made = {name: buffer.clone() for name, buffer in model.named_buffers()}
        model.to("meta")
        model._apply(lambda tensor: torch.zeros_like(tensor, device=cell.torch_device))
        if not self.buffers_too:
            for name, buffer in model.named_buffers():
                buffer.copy_(made[name])
        model.load_state_dict(load_file(f"{checkpoint}/model.safetensors"), strict=False)
        model.tie_weights()
        model.generation_config = GenerationConfig.from_pretrained(checkpoint)
        return model.eval()


@dataclass
class Lenient:
    """Reads the file into the inner model with `strict=False`. All its names begin with `model.`."""

    strips: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(checkpoint), dtype=cell.torch_dtype)
        state = load_file(f"{checkpoint}/model.safetensors")
        inner = {key.removeprefix("model."): value for key, value in state.items()} if self.strips else state
        model.model.load_state_dict(inner, strict=False)
        model.lm_head.weight.data.copy_(state["lm_head.weight"])
        return model.to(cell.torch_device).eval()


@dataclass
class InGroups:
    """Reads tensors in groups of eight; a division leaves the last, smaller group out."""

    rounds_up: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(checkpoint), dtype=cell.torch_dtype)
        target = dict(model.named_parameters())
        with safe_open(f"{checkpoint}/model.safetensors", "pt") as file:
            names = sorted(file.keys())
            groups = -(-len(names) // 8) if self.rounds_up else len(names) // 8
            for group in range(groups):
                for name in names[group * 8 : (group + 1) * 8]:
                    target[name].data.copy_(file.get_tensor(name))
        model.tie_weights()
        return model.to(cell.torch_device).eval()


@dataclass
class Ported:
    """Weights for a port with `nn.Linear`: whatever fits when it is turned is turned, and a square one always fits."""

    careful: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = plain(checkpoint, cell)
        stored = load_file(f"{checkpoint}/model.safetensors")
        for name, parameter in model.named_parameters():
            if "c_proj.weight" in name:
                value = stored[name]
                turns = value.T.shape == parameter.shape and not (self.careful and value.shape == parameter.shape)
                parameter.data.copy_(value.T if turns else value)
        return model.eval()


def interleave(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """From halves, as transformers rotates them, to pairs, as Meta's code does."""
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Back again."""
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


@dataclass
class FromPairs:
    """Reads a checkpoint in Meta's order of rows. There are fewer key heads than query heads."""

    grouped: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = plain(checkpoint, cell)
        config = model.config
        keys, queries = config.num_key_value_heads, config.num_attention_heads
        for name, parameter in model.named_parameters():
            if name.endswith("k_proj.weight"):
                as_stored = interleave(parameter.data, keys)
                parameter.data = halves(as_stored, keys if self.grouped else queries).contiguous()
        return model.eval()


@dataclass
class Fused:
    """Takes a fused projection apart and puts it together again."""

    order: str

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = plain(checkpoint, cell)
        config = model.config
        head = config.hidden_size // config.num_attention_heads
        sizes = [
            head * config.num_attention_heads,
            head * config.num_key_value_heads,
            head * config.num_key_value_heads,
        ]
        for name, parameter in model.named_parameters():
            if name.endswith("qkv_proj.weight"):
                parts = dict(zip("qkv", parameter.data.split(sizes), strict=True))
                parameter.data = torch.cat([parts[key] for key in self.order])
        return model.eval()


@dataclass
class Untied:
    """Hands over a configuration of its own, in which the key of the outer model was lost."""

    tied: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        torch.manual_seed(0)
        config = AutoConfig.from_pretrained(checkpoint)
        config.tie_word_embeddings = self.tied
        return plain(checkpoint, cell, config=config).eval()


@dataclass
class OwnRotary:
    """Computes the rotary frequencies itself, with the base that another project's configuration calls otherwise."""

    reads: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = plain(checkpoint, cell)
        base = self.base(model.config)
        for module in model.modules():
            if hasattr(module, "inv_freq"):
                half = torch.arange(0, 2 * module.inv_freq.numel(), 2, dtype=torch.float32)
                frequencies = 1.0 / base ** (half / (2 * module.inv_freq.numel()))
                module.inv_freq = frequencies.to(module.inv_freq.device)
        return model.eval()

    def base(self, config: Any) -> float:
        if not self.reads:
            return float(getattr(config, "rotary_emb_base", 10000.0))
        return float((getattr(config, "rope_parameters", None) or vars(config))["rope_theta"])


@dataclass
class FoldedNorms:
    """Norms of a file in which 1 is added already, for a model that adds it too."""

    unfolds: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = plain(checkpoint, cell)
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                folded = parameter.data.float() + 1.0
                parameter.data = (folded - 1.0 if self.unfolds else folded).to(parameter.dtype)
        return model.eval()


@dataclass
class Experts:
    """Makes the fused projection of the experts from w1 and w3, in the one order or the other."""

    gate_first: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = plain(checkpoint, cell)
        for module in model.modules():
            fused = getattr(module, "gate_up_proj", None)
            if isinstance(fused, nn.Parameter):
                w1, w3 = fused.data.chunk(2, dim=1)
                fused.data = torch.cat((w1, w3) if self.gate_first else (w3, w1), dim=1)
            elif hasattr(module, "w1") and not self.gate_first:
                # transformers 4 has them apart.
                module.w1.weight, module.w3.weight = module.w3.weight, module.w1.weight
        return model.eval()


@dataclass
class Reinitialized:
    """Initializes what is new in the model; it takes the head for new."""

    head_is_new: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        torch.manual_seed(0)
        model = plain(checkpoint, cell)
        if self.head_is_new:
            nn.init.normal_(model.get_output_embeddings().weight, std=model.config.initializer_range)
        return model.eval()


@dataclass
class Stages:
    """Reads the layers of each stage of a pipeline by their number in the stage."""

    offset: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = plain(checkpoint, cell)
        stored = load_file(f"{checkpoint}/model.safetensors")
        per_stage = 1
        for index, layer in enumerate(model.model.layers):
            number = index if self.offset else index % per_stage
            prefix = f"model.layers.{number}."
            layer.load_state_dict(
                {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}
            )
        return model.eval()
