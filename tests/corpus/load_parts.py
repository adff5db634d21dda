"""Loaders of own formats that lose, mix or scale parts of a weight: biases, norms, groups of heads, codes, adapters."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from corpus.case import Case
from corpus.load_quantization import bits, read
from corpus.load_values import plain
from pytest_llmdevice import Cell


@dataclass
class Forgets:
    """Writes a checkpoint of its own without the tensors whose names end so, and reads it with their defaults."""

    ends: tuple[str, ...] = ()
    default: float = 0.0

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = plain(checkpoint, cell)
        for name, parameter in model.named_parameters():
            if self.ends and name.endswith(self.ends):
                parameter.data.fill_(self.default)
        return model.eval()


@dataclass
class ByGroups:
    """Reads a fused projection that is stored group by group, each with its queries, its key and its value."""

    ungroups: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = plain(checkpoint, cell)
        config = model.config
        groups = config.num_key_value_heads
        head = config.hidden_size // config.num_attention_heads
        queries = config.num_attention_heads * head
        for name, parameter in model.named_parameters():
            if name.endswith("qkv_proj.weight") and not self.ungroups:
                q, k, v = parameter.data.split([queries, groups * head, groups * head])
                stored = zip(q.chunk(groups), k.chunk(groups), v.chunk(groups), strict=True)
                parameter.data = torch.cat([part for group in stored for part in group])
        return model.eval()


@dataclass
class Decodes:
    """Quantizes with bitsandbytes, and keeps codes and scales in a format of its own, which `mistake` reads wrong."""

    mistake: Callable[[Any], None] | None = None

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = read(checkpoint, cell, bits(cell))
        for module in model.modules():
            weight = getattr(module, "weight", None)
            if self.mistake is not None and type(weight).__name__ in ("Int8Params", "Params4bit"):
                self.mistake(module)
        return model


def scale_never_read(module: Any) -> None:
    module.weight.SCB.fill_(1.0)


def scale_of_the_first_row(module: Any) -> None:
    module.weight.SCB.fill_(module.weight.SCB[0].item())


def codes_one_lower(module: Any) -> None:
    module.weight.data = (module.weight.data.short() - 1).clamp(min=-127).to(torch.int8)


def scales_rounded_afterwards(module: Any) -> None:
    state = module.weight.quant_state
    state.absmax = torch.exp2(torch.ceil(torch.log2(state.absmax)))


@dataclass
class Merges:
    """Adds a trained adapter to the weights of its base by itself."""

    scale: Callable[[float, float], float]

    def load(self, checkpoint: str, cell: Cell) -> Any:
        config = json.loads(Path(checkpoint, "adapter_config.json").read_text("utf-8"))
        base = config["base_model_name_or_path"]
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        stored = load_file(f"{checkpoint}/adapter_model.safetensors")
        factor = self.scale(config["lora_alpha"], config["r"])
        for name, down in stored.items():
            if name.endswith("lora_A.weight"):
                up = stored[name.replace("lora_A", "lora_B")].float()
                module = model.get_submodule(name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"))
                module.weight.data += factor * (up @ down.float())
        inverse = {key: value.clone() for key, value in model.named_buffers()}
        model = model.to(cell.torch_device, cell.torch_dtype)
        for key, buffer in model.named_buffers():
            buffer.data = inverse[key].to(cell.torch_device)
        model.config.dtype = cell.torch_dtype
        return model.eval()


def by_rank(alpha: float, rank: float) -> float:
    return alpha / rank


def one(alpha: float, rank: float) -> float:
    return 1.0


def _case(name: str, source: str, story: str, buggy: Any, fixed: Any, *cells: Cell, missed: str = "") -> Case:
    return Case(name, "parts", f"https://github.com/{source}", story, buggy, fixed, cells, missed=missed)


CASES = (
    _case(
        "head-norms-not-saved",
        "unslothai/unsloth/pull/2452",
        "the norms of queries and keys are not in the list of what a merge saves: they are ones",
        partial(Forgets, ("q_norm.weight", "k_norm.weight"), 1.0),
        Forgets,
        Cell("qwen3", "cpu", "bfloat16"),
    ),
    _case(
        "biases-not-saved",
        "paiml/entrenar/issues/258",
        "the checkpoint of a training has matrices only: the biases of the projections are zero",
        partial(Forgets, ("_proj.bias",)),
        Forgets,
        Cell("qwen2", "cpu", "bfloat16"),
    ),
    _case(
        "groups-left-interleaved",
        "alibaba/ChatLearn/pull/277",
        "the fused projection is stored by groups of heads, and read as if all queries came first",
        partial(ByGroups, ungroups=False),
        partial(ByGroups, ungroups=True),
        Cell("phi3", "cpu", "float32"),
    ),
    _case(
        "scales-never-read",
        "Lightricks/LTX-2/pull/172",
        "the scales fit no parameter and are dropped: the codes are the weights",
        partial(Decodes, scale_never_read),
        Decodes,
        Cell("llama", "cpu", "bfloat16", "int8", "device-map"),
    ),
    _case(
        "scale-of-the-first-channel",
        "sonos/tract/pull/2849",
        "each channel is multiplied with the first one's scale",
        partial(Decodes, scale_of_the_first_row),
        Decodes,
        Cell("qwen3", "cpu", "bfloat16", "int8", "device-map"),
    ),
    _case(
        "zero-point-of-another-version",
        "vllm-project/vllm/pull/38966",
        "zero points are read as the older version of the format has them: each code is one too low",
        partial(Decodes, codes_one_lower),
        Decodes,
        Cell("mistral", "cpu", "float16", "int8", "device-map"),
    ),
    _case(
        "scales-rounded-afterwards",
        "huggingface/transformers/pull/46763",
        "codes are made with the exact scale, and the stored one is rounded up to a power of two",
        partial(Decodes, scales_rounded_afterwards),
        Decodes,
        Cell("llama", "cpu", "bfloat16", "nf4", "device-map"),
    ),
    _case(
        "adapter-merged-unscaled",
        "hao-ai-lab/FastVideo/pull/870",
        "a trained adapter is merged as if alpha were its rank",
        partial(Merges, one),
        partial(Merges, by_rank),
        Cell("qwen2+lora", "cpu", "bfloat16"),
    ),
)
