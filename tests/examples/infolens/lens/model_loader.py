"""One function decides how to load from the device, another one loads with it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig


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


def decide(device: torch.device, environment: Mapping[str, str] = os.environ) -> LoadPlan:
    """The plan for `device`, with what `FORCE_INT8` and `CPU_FORCE_BFLOAT16` ask for.

    MPS has no int8: `FORCE_INT8` is ignored there, with a warning. bfloat16 on a CPU is for those with AVX-512_BF16 or
    AMX; on others it may be extremely slow.
    """
    int8 = environment.get("FORCE_INT8") == "1"
    if int8 and device.type == "mps":
        warnings.warn("MPS does not support INT8; FORCE_INT8 is ignored", stacklevel=2)
        int8 = False
    attention = attention_for(device)
    if device.type == "cpu":
        dtype = torch.bfloat16 if environment.get("CPU_FORCE_BFLOAT16") == "1" else torch.float32
        return LoadPlan(device, "cpu" if int8 else None, dtype, int8, attention)
    return LoadPlan(device, "auto", torch.float16, int8, attention)


def attention_for(device: torch.device) -> str:
    """`eager` off CUDA; on CUDA `flash_attention_2` where it is installed, else `eager`. Never `sdpa`."""
    return "flash_attention_2" if device.type == "cuda" and find_spec("flash_attn") else "eager"


def local_first(name: str, cache: Path | None = None) -> str:
    """The folder of a model: `name` itself, else its place in the local cache, else what the hub is asked for."""
    if Path(name).is_dir():
        return name
    try:
        return snapshot_download(name, cache_dir=cache, local_files_only=True)
    except LocalEntryNotFoundError:
        return snapshot_download(name, cache_dir=cache, local_files_only=False)


def load_model(name: str, plan: LoadPlan) -> Any:
    """Load the model `name` as `plan` says, ready for inference."""
    options: dict[str, Any] = {"dtype": plan.dtype, "attn_implementation": plan.attention}
    if plan.int8:
        options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    if plan.device_map is not None:
        options["device_map"] = plan.device_map
    model = AutoModelForCausalLM.from_pretrained(local_first(name), **options)
    if plan.device_map is None:
        model = model.to(plan.device)
    return model.eval()


def load_tokenizer(name: str) -> Any:
    """The tokenizer of the model `name`, from the same place."""
    return AutoTokenizer.from_pretrained(local_first(name))
