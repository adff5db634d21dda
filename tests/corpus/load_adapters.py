"""Loaders that add low-rank adapters. These are new: what they add is zero until they are trained."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from corpus.case import Case
from pytest_llmdevice import Cell


class Adapted(nn.Module):
    """A linear layer with a low-rank adapter beside it."""

    def __init__(self, base: nn.Linear, rank: int, device: Any, dtype: Any, *, casts: bool = False) -> None:
        super().__init__()
        self.base_layer = base
        self.down = nn.Parameter(torch.randn(rank, base.in_features, device=device, dtype=dtype))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank, device=device, dtype=dtype))
        self.casts = casts

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        base = self.base_layer(hidden)
        given = hidden.to(self.down.dtype) if self.casts else hidden
        return base + (given @ self.down.T @ self.up.T).to(base.dtype)


@dataclass
class Injects:
    """Puts adapters into the model after it was moved."""

    beside: bool = True
    dtype: torch.dtype | None = None
    casts: bool = False

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype).to(cell.torch_device)
        for name, module in list(model.named_modules()):
            if name.endswith(("q_proj", "v_proj")):
                weight = module.weight
                device = weight.device if self.beside else None
                model.set_submodule(name, Adapted(module, 4, device, self.dtype or weight.dtype, casts=self.casts))
        return model.eval()


def peft_model(model: Any, **options: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.1, task_type="CAUSAL_LM", **options)
    return get_peft_model(model, config)


@dataclass
class Peft:
    """A LoRA model of PEFT, put together in the one order or the other."""

    moves_last: bool = True
    evaluates_last: bool = True

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype).eval()
        if not self.moves_last:
            model = model.to(cell.torch_device)
        model = peft_model(model)
        if not self.moves_last:
            # What `load_adapter(..., torch_device="cpu")` leaves behind.
            for name, module in model.named_modules():
                if "lora_" in name and isinstance(module, nn.Linear):
                    module.to("cpu")
        model = model.to(cell.torch_device) if self.moves_last else model
        if self.evaluates_last:
            model.eval()
        else:
            model.train()
        return model


@dataclass
class TakesOff:
    """Merges a trained adapter for one user, and takes it off again for the next, in half precision or exactly."""

    subtracts: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype).to(cell.torch_device)
        for name, parameter in model.named_parameters():
            if name.endswith(("q_proj.weight", "v_proj.weight")):
                exact = parameter.data.clone()
                delta = (torch.randn_like(parameter) @ torch.randn_like(parameter).T)[:, :1] * 0.1
                parameter.data += delta
                if self.subtracts:
                    parameter.data -= delta
                else:
                    parameter.data = exact
        return model.eval()


@dataclass
class TrainsInFloat32:
    """Casts what belongs to the adapters to float32, by a word in their names; q_proj's bias has it too."""

    exact: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype).to(cell.torch_device)
        model = peft_model(model)
        for name, parameter in model.named_parameters():
            if "lora_" in name if self.exact else "q_proj" in name:
                parameter.data = parameter.data.float()
        return model.eval()


HF = "https://github.com/huggingface"

CASES = (
    Case(
        name="adapter-made-on-the-cpu",
        family="placement",
        source="https://github.com/ViperEkura/AstrAI/pull/19",
        story="adapters are made after the model was moved, and nobody says where",
        buggy=partial(Injects, beside=False),
        fixed=Injects,
        cells=(Cell("llama", "cuda:1", "bfloat16", simulated=True),),
        machine="cuda:2",
    ),
    Case(
        name="adapter-of-peft-on-the-cpu",
        family="placement",
        source=f"{HF}/accelerate/issues/2829",
        story="PEFT's adapter stays on the CPU beside a base on the card",
        buggy=partial(Peft, moves_last=False),
        fixed=Peft,
        cells=(Cell("qwen2", "cuda:0", "float16", simulated=True),),
        machine="cuda:2",
        needs="peft",
    ),
    Case(
        name="adapter-in-float32-without-a-cast",
        family="dtype",
        source="https://github.com/NVIDIA-NeMo/Automodel/pull/3638",
        story="float32 adapters meet half precision activations, and nobody casts them",
        buggy=partial(Injects, dtype=torch.float32),
        fixed=partial(Injects, dtype=torch.float32, casts=True),
        cells=(Cell("mistral", "cpu", "bfloat16"),),
    ),
    Case(
        name="adapter-in-training-mode",
        family="state",
        source="https://github.com/ai2cm/ace/pull/1019",
        story="the adapter's dropout is active: the model was put into evaluation mode before it was added",
        buggy=partial(Peft, evaluates_last=False),
        fixed=Peft,
        cells=(Cell("llama", "cpu", "float32"),),
        needs="peft",
    ),
    Case(
        name="adapter-taken-off-in-half",
        family="values",
        source="https://github.com/KohakuBlueleaf/LyCORIS/issues/264",
        story="an adapter is merged and subtracted again in half precision: the weights have drifted",
        buggy=partial(TakesOff, subtracts=True),
        fixed=partial(TakesOff, subtracts=False),
        cells=(Cell("qwen3", "cpu", "bfloat16"),),
    ),
    Case(
        name="base-cast-with-the-adapter",
        family="dtype",
        source=f"{HF}/trl/issues/1398",
        story="the adapters are cast to float32 by a name that the base layers have too",
        buggy=partial(TrainsInFloat32, exact=False),
        fixed=partial(TrainsInFloat32, exact=True),
        cells=(Cell("llama", "cpu", "bfloat16"),),
        needs="peft",
    ),
)
