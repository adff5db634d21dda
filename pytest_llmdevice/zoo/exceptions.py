"""Says, for each architecture whose tiny configuration does not follow from names alone, what is other and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What the reducer cannot tell from names.

    Attributes:
        reason: why.
        arguments: arguments that are given instead of the reduced ones; those of a nested configuration in a mapping.
            None leaves the argument out, so that the class chooses.
    """

    reason: str
    arguments: Mapping[str, Any] = field(hash=False)


_CODEBOOKS = "it reads codebooks of audio, and its class does not take the configuration that is registered for it"

_HYBRID = "which layers attend is computed from periods, and without one that does there is no length of the cache"

_MULTI_HEAD = {"num_key_value_heads": 4}

ADJUSTMENTS: Final[Mapping[str, Adjustment]] = {
    "bailing_hybrid": Adjustment(
        "the class gives its linear layers the width of heads that it then takes for rotary dimensions",
        {"head_dim": 16, "num_local_experts": 4, "num_key_value_heads": 4},
    ),
    "bamba": Adjustment(_HYBRID, {"attn_layer_indices": [1], "mamba_d_head": 16}),
    "granitemoehybrid": Adjustment(
        _HYBRID, {"layer_types": ["linear_attention", "full_attention"], "num_hidden_layers": 2, "mamba_d_head": 16}
    ),
    "jamba": Adjustment(
        _HYBRID,
        {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    ),
    "recurrent_gemma": Adjustment(_HYBRID, {"block_types": ["recurrent", "attention"]}),
    "codegen": Adjustment("the rotary part may not be wider than a head", {"rotary_dim": 8}),
    "gptj": Adjustment("the rotary part may not be wider than a head", {"rotary_dim": 8}),
    "deepseek_v2": Adjustment("keys and values have one latent for all heads", _MULTI_HEAD),
    "gpt_neo": Adjustment("layer types are a pattern with counts", {"attention_types": [[["global", "local"], 1]]}),
    "mamba2": Adjustment("heads times their width are twice the hidden size", {"num_heads": 8, "head_dim": 16}),
    "mamba": Adjustment("the step's rank is a multiple of what kernels take", {"time_step_rank": 48}),
    "reformer": Adjustment(
        "it decodes only when told so, and its positions are factors of a product",
        {
            "is_decoder": True,
            "attn_layers": ["local", "local"],
            "axial_pos_shape": [16, 32],
            "axial_pos_embds_dim": [16, 48],
        },
    ),
    "xlstm": Adjustment(
        "widths are rounded up to 64 in the class",
        {"num_heads": 4, "num_blocks": None, "chunk_size": 16, "qk_dim_factor": 1.0},
    ),
    "xmod": Adjustment("no text is read without a language", {"default_language": "en_XX"}),
    "zamba": Adjustment(
        "two hybrid layers share one block, which ties their weights",
        {
            "num_hidden_layers": 4,
            "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
            "attention_hidden_size": 128,
            "attention_head_dim": 32,
            "mamba_dt_rank": 16,
        },
    ),
    "lfm2_moe": Adjustment(
        "without layer types there are no layers",
        {
            "layer_types": ["conv", "full_attention"],
            "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"},
            "num_dense_layers": 1,
        },
    ),
    "longcat_flash": Adjustment(
        "experts that return their input are counted apart, and a head is as wide as its rotary part",
        {"zero_expert_num": 2, "head_dim": 32},
    ),
    "ministral": Adjustment("without a width of heads rotary frequencies cannot be computed", {"head_dim": 16}),
    "qwen4_exp_text": Adjustment(
        "its layers choose what they attend to by an index without default sizes",
        {
            "indexer_n_heads": 2,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 32,
            "indexer_budget": 32,
            "indexer_compress_ratio": 4,
        },
    ),
    "gemma3n_text": Adjustment(
        "the last layers read the keys and values of earlier ones, of which there is one of each kind",
        {
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
            "intermediate_size": [128] * 4,
            "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0],
        },
    ),
    "dots3_note_text": Adjustment(
        "its sliding layers have sizes of their own, by names that are no arguments",
        {
            "swa_num_attention_heads": 4,
            "swa_num_key_value_heads": 4,
            "swa_q_lora_rank": 64,
            "swa_kv_lora_rank": 64,
            "swa_head_dim": 48,
            "swa_qk_nope_head_dim": 16,
            "swa_v_head_dim": 16,
        },
    ),
    "vibevoice_acoustic_tokenizer_encoder": Adjustment(
        "widths double with each stage",
        {"depths": [1, 1], "downsampling_ratios": [2], "num_filters": 8, "hidden_size": 16},
    ),
    "encoder-decoder": Adjustment(
        "its decoder is told by the class what it is, and would not look at what was encoded",
        {"decoder": {"is_decoder": True, "add_cross_attention": True}},
    ),
    "prophetnet": Adjustment(
        "its positions are counted from the id of the padding token, and its steps take them for counts from 0",
        {"pad_token_id": 0},
    ),
    "kimi_linear": Adjustment("counts of experts have other names in the class", {"num_local_experts": 4}),
    "cohere_compass_text": Adjustment(
        "rotary settings are one set for each type of layer, and there is no default",
        {"rope_parameters": {"full_attention": {"rope_theta": 1e4, "rope_type": "default"}}},
    ),
    "dbrx": Adjustment(
        "rotary settings are read off the attention's own configuration",
        {"attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0}},
    ),
}
"""Model type -> what is other."""


def adjusted(model_type: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The `arguments` of a configuration with what `ADJUSTMENTS` has for its `model_type`, in nested ones too."""
    found: dict[str, Any] = {
        name: adjusted(str(value["model_type"]), value)
        if isinstance(value, Mapping) and value.get("model_type")
        else value
        for name, value in arguments.items()
    }
    entry = ADJUSTMENTS.get(model_type)
    for name, value in entry.arguments.items() if entry is not None else ():
        if value is None:
            found.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(found.get(name), Mapping):
            found[name] = {**found[name], **value}
        else:
            found[name] = value
    return found


_ASSISTANT: Final = "an assistant reads keys and values of the model that it drafts for, and says nothing by itself"

CANNOT: Final[Mapping[str, str]] = {
    "blt": "its forward pass asks its configuration for num_hidden_layers, which it has not (transformers 5.23)",
    "gemma3n": "its vision tower is made by timm, an optional package; gemma3n_text is its text part",
    "gemma4_assistant": _ASSISTANT,
    "gemma4_unified_assistant": _ASSISTANT,
    "musicgen": _CODEBOOKS,
    "musicgen_melody": _CODEBOOKS,
    "voxtral_realtime": "it adds a piece of audio to each token, and reads no text alone",
}
"""Names of architectures that no checkpoint for text can be made of, and why."""

REVISIONS: Final[Mapping[str, int]] = dict.fromkeys(("longt5", "mt5", "switch_transformers", "t5", "umt5"), 1)
"""How often the weights of an architecture were made otherwise since the last change to those of all: since 1, queries
of attention that does not divide its scores are smaller."""
