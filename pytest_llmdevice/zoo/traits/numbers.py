"""Traits of numbers: scales, epsilons, and how experts are chosen."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.zoo.traits.trait import Trait

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

INEXACT_WIDTH: Final = 192
"""A hidden size whose root no half precision holds; a multiple of 64, as block-wise quantization needs it."""

EPSILON: Final = 0.05
"""Large beside a variance of one, so that a model with the usual epsilon says something else."""

_EPSILONS: Final = re.compile(r"\w*(norm_eps|norm_epsilon|layernorm_eps)(ilon)?|norm_eps")

ATTENTION_FACTOR: Final = 2.0

_EXPERTS: Final = {"num_experts": 16, "n_routed_experts": 16, "num_local_experts": 16, "moe_num_experts": 16}
_PER_TOKEN: Final = 4

_CORRECTION: Final = "e_score_correction_bias"

CORRECTED: Final = frozenset(
    {"deepseek_v3", "glm4_moe", "glm4_moe_lite", "dots1", "kimi_linear", "ernie4_5_moe", "minimax_m2", "solar_open"}
)
"""Model types whose routers have a correction bias."""


def _no_scaled_embedding(config: PreTrainedConfig) -> str | None:
    if config.model_type not in {"gemma", "gemma2", "gemma3_text", "recurrent_gemma"}:
        return "its embedding is not scaled by the root of its width"
    return None


def _widen(config: PreTrainedConfig) -> None:
    untyped: Any = config
    untyped.hidden_size = INEXACT_WIDTH


def _no_attention_scale(config: PreTrainedConfig) -> str | None:
    if hasattr(config, "query_pre_attn_scalar") or hasattr(config, "attention_multiplier"):
        return None
    return "its scores are scaled by the width of its heads"


def _scale_attention(config: PreTrainedConfig) -> None:
    untyped: Any = config
    if hasattr(config, "query_pre_attn_scalar"):
        untyped.query_pre_attn_scalar = int(untyped.query_pre_attn_scalar * ATTENTION_FACTOR)
    else:
        untyped.attention_multiplier = untyped.attention_multiplier / ATTENTION_FACTOR


def _epsilons(config: PreTrainedConfig) -> list[str]:
    return [name for name, value in vars(config).items() if _EPSILONS.fullmatch(name) and isinstance(value, float)]


def _no_epsilon(config: PreTrainedConfig) -> str | None:
    return None if _epsilons(config) else "its configuration names no epsilon of norms"


def _change_epsilon(config: PreTrainedConfig) -> None:
    for name in _epsilons(config):
        setattr(config, name, EPSILON)


def _no_correction(config: PreTrainedConfig) -> str | None:
    return None if config.model_type in CORRECTED else "its routers have no correction bias"


def _correct(model: PreTrainedModel) -> None:
    """Prefer the first expert before all, and give the others an order that no two scores can turn."""
    import torch

    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name.endswith(_CORRECTION):
                order = torch.linspace(0.6, -0.6, max(tensor.numel() - 1, 1))[: tensor.numel() - 1]
                values = torch.cat([torch.tensor([2.0]), order])
                tensor.copy_(values.reshape(tensor.shape))


def _no_experts(config: PreTrainedConfig) -> str | None:
    if not any(isinstance(getattr(config, name, None), int) for name in _EXPERTS):
        return "it has no experts"
    return None if hasattr(config, "num_experts_per_tok") else "how many experts a token has is no argument"


def _more_experts(config: PreTrainedConfig) -> None:
    untyped: Any = config
    for name, count in _EXPERTS.items():
        if isinstance(getattr(config, name, None), int):
            setattr(config, name, count)
    untyped.num_experts_per_tok = _PER_TOKEN


TRAITS: Final = (
    Trait(
        "bias-correction",
        "a correction bias of routers that is not zero, and decides",
        "DeepSeek-V3 balances its experts with it; a loader that drops it chooses other experts.",
        "https://huggingface.co/deepseek-ai/DeepSeek-V3/blob/main/modeling_deepseek.py",
        "experts with a correction bias",
        refusal=_no_correction,
        weigh=_correct,
    ),
    Trait(
        "close-routing",
        "16 experts, four a token, whose scores are as close as chance makes them",
        "With 128 experts the eighth and ninth score of a token are often nearer than half precision tells.",
        "https://huggingface.co/Qwen/Qwen3-30B-A3B/blob/main/config.json",
        "models with experts",
        refusal=_no_experts,
        configure=_more_experts,
        close=True,
    ),
    Trait(
        "inexact-scale",
        f"a hidden size of {INEXACT_WIDTH}, whose root half precision rounds",
        "Gemma multiplies its embedding by the root of the hidden size, in the dtype it was trained in.",
        "https://github.com/huggingface/transformers/pull/37109",
        "Gemma's text models",
        refusal=_no_scaled_embedding,
        configure=_widen,
    ),
    Trait(
        "attention-scale",
        "scores that are scaled by another number than the width of a head",
        "Gemma 2 27B, Gemma 3 27B and Granite give their own.",
        "https://huggingface.co/google/gemma-3-27b-it/blob/main/config.json",
        "models that give a scale of attention",
        refusal=_no_attention_scale,
        configure=_scale_attention,
    ),
    Trait(
        "epsilon",
        f"an epsilon of norms of {EPSILON}, so large that it is heard",
        "Llama 2 and 3 have 1e-5, the class 1e-6, and Phi and GPT-NeoX others.",
        "https://huggingface.co/meta-llama/Llama-3.1-8B/blob/main/config.json",
        "models that give an epsilon",
        refusal=_no_epsilon,
        configure=_change_epsilon,
    ),
)
