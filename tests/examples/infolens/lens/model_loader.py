"""One function decides how to load from the device, another one loads with it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig


@dataclass(frozen=True)
class LoadPlan:
    """How a model is loaded.

    `device_map` None means: load on the CPU, then `.to(device)`.
    """

    device: torch.device
    device_map: str | None
    dtype: torch.dtype
    int8: bool
    attention: str


def decide(device: torch.device, *, force_int8: bool = False, cpu_force_bfloat16: bool = False) -> LoadPlan:
    """The plan for `device`; MPS has no int8, so `force_int8` is ignored there with a warning."""
    if force_int8 and device.type == "mps":
        warnings.warn("MPS does not support INT8; FORCE_INT8 is ignored", stacklevel=2)
        force_int8 = False
    attention = "flash_attention_2" if device.type == "cuda" and find_spec("flash_attn") else "eager"
    if device.type == "cpu":
        dtype = torch.bfloat16 if cpu_force_bfloat16 else torch.float32
        return LoadPlan(device, "cpu" if force_int8 else None, dtype, force_int8, attention)
    return LoadPlan(device, "auto", torch.float16, force_int8, attention)


def load_model(path: str, plan: LoadPlan) -> Any:
    """Load the model in `path` as `plan` says, ready for inference."""
    options: dict[str, Any] = {"dtype": plan.dtype, "attn_implementation": plan.attention}
    if plan.int8:
        options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    if plan.device_map is not None:
        options["device_map"] = plan.device_map
    model = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, **options)
    if plan.device_map is None:
        model = model.to(plan.device)
    return model.eval()
