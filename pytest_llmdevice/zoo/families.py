"""Defines the model families of the zoo: the configuration of each, and facts about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.axes import Machine, Rule, below
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import current

VOCAB_SIZE: Final = 320
"""256 bytes, then special and reserved tokens up to a multiple of 64."""

PAD_TOKEN_ID: Final = 256
BOS_TOKEN_ID: Final = 257
EOS_TOKEN_ID: Final = 258

MAX_LENGTH: Final = 512
"""Positions every family can address, in tokens: beyond 256, where bfloat16 stops counting exactly."""

SEED: Final = 0
"""The seed of every checkpoint that ships."""

Kind = Literal["causal", "seq2seq"]


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture of the zoo, as data.

    Attributes:
        name: the name in a matrix.
        config_class: name of the configuration class in `transformers`.
        arguments: keyword arguments of that class; token ids and vocabulary size are added to them.
        kind: `"causal"` (decoder only) or `"seq2seq"` (encoder-decoder).
        tied: whether the output embedding is the input embedding.
        moe: whether some layers route tokens to experts.
        notes: what this family exercises that others do not.
        rules: what installed libraries cannot do with it.
        revision: a number that is increased when its weights are made otherwise and those of others are not.
    """

    table: ClassVar[str] = "family"

    name: str
    config_class: str
    arguments: Mapping[str, Any] = field(hash=False)
    kind: Kind = "causal"
    tied: bool = False
    moe: bool = False
    notes: str = ""
    rules: tuple[Rule, ...] = ()
    revision: int = 0

    @property
    def auto_class(self) -> str:
        """Name of the `transformers` auto class that loads this family."""
        return "AutoModelForSeq2SeqLM" if self.kind == "seq2seq" else "AutoModelForCausalLM"


# Widths are multiples of 64: bitsandbytes quantizes 4-bit weights in blocks of 64 values along a row.
_DECODER: Final[Mapping[str, Any]] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": MAX_LENGTH,
}

_GPT2: Final[Mapping[str, Any]] = {
    "n_embd": 64,
    "n_inner": 128,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": MAX_LENGTH,
}

SLIDING_WINDOW: Final = 16
"""Tokens a sliding layer sees: fewer than the longest shipped prompt has."""


def _mamba_reads_its_weight(cell: Cell, machine: Machine) -> str | None:
    if cell.quantization == "none" or below(machine, "transformers", "5.15.0.dev0"):
        return None
    return (
        "transformers' Mamba multiplies with dt_proj.weight itself (5.15 and later), which is packed in "
        f"{cell.quantization}; it needs a load that leaves dt_proj dense"
    )


def _deepseek_gives_int8_four_dimensions(cell: Cell, machine: Machine) -> str | None:
    # Seen on the CPU and on an H100 with bitsandbytes 0.50.2.
    if cell.quantization != "int8" or below(machine, "transformers", "5.15.0.dev0"):
        return None
    return (
        "transformers' DeepSeek-V3 gives kv_b_proj an input of four dimensions (5.15 and later), and "
        "bitsandbytes' int8 kernels take at most three"
    )


def _family(name: str, config_class: str, arguments: Mapping[str, Any], **facts: Any) -> Family:
    return Family(name, config_class, MappingProxyType(dict(arguments)), **facts)


FAMILIES: Final = (
    _family("llama", "LlamaConfig", {**_DECODER, "head_dim": 16}, notes="grouped-query attention, RoPE, SwiGLU"),
    _family(
        "qwen2",
        "Qwen2Config",
        {**_DECODER, "tie_word_embeddings": True},
        tied=True,
        notes="biases on q, k and v; tied embeddings, as in Qwen1.5-0.5B",
    ),
    _family(
        "qwen3",
        "Qwen3Config",
        {**_DECODER, "head_dim": 32},
        notes="RMSNorm on q and k; head_dim is not hidden_size / heads",
    ),
    _family(
        "mistral",
        "MistralConfig",
        {**_DECODER, "head_dim": 16, "sliding_window": SLIDING_WINDOW},
        notes="sliding-window attention in every layer",
    ),
    _family(
        "gemma3",
        "Gemma3TextConfig",
        {
            **_DECODER,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": SLIDING_WINDOW,
            "layer_types": ["sliding_attention", "full_attention"],
            "tie_word_embeddings": True,
        },
        tied=True,
        notes="a sliding and a full layer, each with its RoPE base; tied embeddings, scaled on the way in",
    ),
    _family(
        "phi3",
        "Phi3Config",
        {**_DECODER, "original_max_position_embeddings": MAX_LENGTH},
        notes="q, k, v in one projection; gate and up in one projection",
    ),
    _family(
        "gpt2",
        "GPT2Config",
        {**_GPT2, "tie_word_embeddings": True},
        tied=True,
        notes="Conv1D weights (in, out); learned absolute positions; tied embeddings",
    ),
    _family(
        "opt",
        "OPTConfig",
        {
            "hidden_size": 64,
            "word_embed_proj_dim": 64,
            "ffn_dim": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": MAX_LENGTH,
            "tie_word_embeddings": True,
        },
        tied=True,
        notes="learned positions with an offset of 2, counted from the attention mask; tied embeddings",
    ),
    _family(
        "bloom",
        "BloomConfig",
        {"hidden_size": 64, "n_layer": 2, "n_head": 4, "tie_word_embeddings": True},
        tied=True,
        notes="ALiBi instead of positions; LayerNorm after the embedding; tied embeddings",
    ),
    _family(
        "mixtral",
        "MixtralConfig",
        {**_DECODER, "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
        moe=True,
        notes="four experts, two per token, in every layer",
    ),
    _family(
        "qwen3-moe",
        "Qwen3MoeConfig",
        {
            **_DECODER,
            "head_dim": 16,
            "moe_intermediate_size": 64,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
        },
        moe=True,
        notes="four experts, two per token, in every layer; RMSNorm on q and k",
    ),
    _family(
        "deepseek-v3",
        "DeepseekV3Config",
        {
            **_DECODER,
            "num_key_value_heads": 4,
            "moe_intermediate_size": 64,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "q_lora_rank": 64,
            "kv_lora_rank": 64,
            "qk_nope_head_dim": 16,
            # With kv_lora_rank a multiple of 32: what bitsandbytes' 4-bit kernel for AVX512-BF16 takes.
            "qk_rope_head_dim": 32,
            "v_head_dim": 16,
        },
        moe=True,
        notes="multi-head latent attention; one dense layer, then one with routed and shared experts",
        rules=(
            Rule(
                "deepseek-gives-int8-four-dimensions",
                "transformers.models.deepseek_v3 expand_kv (absent in 5.14.0, present in 5.15.0); "
                "bitsandbytes.backends.default.ops int8_vectorwise_quant reduces over dim=1 (0.50.2)",
                _deepseek_gives_int8_four_dimensions,
            ),
        ),
    ),
    _family(
        "mamba",
        "MambaConfig",
        {
            "hidden_size": 64,
            "state_size": 8,
            "num_hidden_layers": 2,
            "time_step_rank": 48,
            "tie_word_embeddings": False,
        },
        notes="state-space layers: a convolution and a recurrent state instead of a KV cache",
        rules=(
            Rule(
                "mamba-reads-its-weight",
                "transformers.models.mamba MambaMixer: `self.dt_proj.weight @ time_step` on every path since 5.15.0, "
                "until 5.14.0 only on the one with mamba_ssm's kernels",
                _mamba_reads_its_weight,
            ),
        ),
    ),
    _family(
        "t5",
        "T5Config",
        {
            "d_model": 64,
            "d_kv": 16,
            "d_ff": 128,
            "num_layers": 2,
            "num_decoder_layers": 2,
            "num_heads": 4,
            "dropout_rate": 0.0,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": True,
        },
        kind="seq2seq",
        tied=True,
        notes="encoder-decoder; relative position bias; one embedding shared three times",
    ),
)


def families() -> tuple[str, ...]:
    """Names of the families in the registry, in their order."""
    return tuple(current().of(Family))


def family(name: str) -> Family:
    """The facts about one family.

    Raises:
        ConfigurationError: no family has this name.
    """
    known = current().of(Family)
    if name not in known:
        raise ConfigurationError(
            f"no model family is called {name!r}; there are {', '.join(known)}, path:DIR and hub:org/name@revision"
        )
    return known[name]
