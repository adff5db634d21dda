"""Holds the sizes that arguments of configurations are reduced to, by their names."""

from __future__ import annotations

import re
from typing import Final

from pytest_llmdevice.zoo.families import MAX_LENGTH, SLIDING_WINDOW, VOCAB_SIZE

HIDDEN: Final = 64
"""The width of the residual stream; the others are multiples of it, as block-wise quantization needs them."""

HEADS: Final = 4
HEAD_WIDTH: Final = HIDDEN // HEADS
EXPERTS: Final = 4
LAYERS: Final = 2

_SIZES: Final[tuple[tuple[tuple[str, ...], int], ...]] = (
    (
        (
            r"(encoder_|decoder_)?max_position_embeddings|n_positions|n_ctx|max_seq_len|context_length|model_max_length",
            r"max_(target|source|encoder|decoder)_position(_embedding)?s|original_max_position_embeddings",
        ),
        MAX_LENGTH,
    ),
    ((r"\w*vocab(ulary)?_size\w*",), VOCAB_SIZE),
    (
        (
            r"hidden_size|n_embd|d_model|emb_dim|embed_dim|embedding_dim|dim|embedding_size|word_embed_proj_dim|lru_width",
            r"(input|output)_embedding_size|attention_hidden_size|hidden_dim|q_lora_rank|kv_lora_rank|o_lora_rank",
            r"\w+_embed_dim|encoder_hidden_size|cross_attention_hidden_size|router_hidden_size|out_hidden_size|output_dim",
            r"prompt_mid_dim|vision_output_dim|adapter_(in|out)_dim|adapter_input_size|projector_\w+_dim|\w*channels?",
        ),
        HIDDEN,
    ),
    (
        (
            r"(shared_|dense_)?intermediate_size(_mlp)?|n_inner|\w*ffn_dim|\w*ffn_hidden_size|dff|d_ff|dim_ff",
            r"feed_forward_size|d_inner|mlp_dim|mamba_d_ssm",
        ),
        2 * HIDDEN,
    ),
    (
        (r"moe_(shared_expert_)?intermediate_size|shared_experts?_intermediate_size|expert_ffn_hidden_size",),
        HIDDEN,
    ),
    ((r"\w*attention_heads|n_heads?|num_heads|linear_num_(key_|value_)?heads",), HEADS),
    (
        (r"\w*head_dim|head_size|d_head|dim_head|attention_head_size|d_kv|kv_channels|query_pre_attn_scalar",),
        HEAD_WIDTH,
    ),
    ((r"qk_rope_head_dim|rotary_dim|index_head_dim",), 2 * HEAD_WIDTH),
    ((r"qk_head_dim",), 3 * HEAD_WIDTH),
    ((r"num_experts|n_routed_experts|num_local_experts|moe_num_experts",), EXPERTS),
    ((r"num_experts_per_tok(en)?|moe_topk|moe_top_k|moe_k",), 2),
    ((r"topk_group|n_group|num_expert_group|n_shared_experts|num_shared_experts|moe_num_shared_experts",), 1),
    ((r"(\w+_)?num_(\w+_)?layers|\w*n_layers?|\w*(encoder|decoder)_layers|depth|num_blocks",), LAYERS),
    (
        (
            r"sliding_window(_size)?|(local_)?attention_window\w*|window_size|keep_window_size|attention_chunk_size",
            r"local_attention|local_radius|(local_attn|lsh_attn)_chunk_length|(index_)?block_size|(mamba_)?chunk_size",
        ),
        SLIDING_WINDOW,
    ),
    ((r"mamba_d_state|(ssm_)?state_size|mamba_d_head|mamba_head_?dim",), HEAD_WIDTH),
    ((r"mamba_n_heads|mamba_num_heads",), 2 * HEADS),
    ((r"mamba_n_?groups|n_groups",), 1),
    (
        (r"mamba_dt_rank|time_step_rank|hc_lowrank|gated_norm_rank|adapter_rank|laurel_rank|downsample_hidden_size",),
        HEAD_WIDTH,
    ),
    ((r"image_size|crop_size",), 28),
    ((r"patch_size",), 14),
    ((r"index_topk",), 2 * SLIDING_WINDOW),
    # With few heads, whose scores have no negative part, many tokens would have a score of exactly zero.
    ((r"index_n_heads",), 4 * HEADS),
)
"""Patterns of whole names -> what such an argument is reduced to, if it is larger. The last that fits counts."""

_KEY_VALUE_HEADS: Final = re.compile(r"\w*(num_key_value_heads|num_kv_heads|num_query_groups|kv_n_heads)")


def size_of(name: str) -> int | None:
    """What an argument called `name` is reduced to; None where the name is not known."""
    sizes = [size for patterns, size in _SIZES if any(re.fullmatch(pattern, name) for pattern in patterns)]
    return sizes[-1] if sizes else None


def counts_key_value_heads(name: str) -> bool:
    """Whether an argument called `name` is the number of heads that have keys and values of their own."""
    return _KEY_VALUE_HEADS.fullmatch(name) is not None
