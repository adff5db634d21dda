"""Says in words what an architecture exercises, by the names of the arguments of its tiny configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pytest_llmdevice.errors import UnsupportedByLibrary
from pytest_llmdevice.zoo.architectures import Architecture, architectures, config_for, family_of
from pytest_llmdevice.zoo.catalogue import hyphenated

_WORDS: Final[tuple[tuple[str, str], ...]] = (
    (r"num_experts|n_routed_experts|num_local_experts|moe_num_experts|num_experts_per_tok", "experts"),
    (r"n_shared_experts|num_shared_experts|shared_expert_intermediate_size", "shared experts"),
    (r"kv_lora_rank", "latent attention"),
    (r"sliding_window|attention_window|window_size|local_attention", "a sliding window"),
    (r"state_size|mamba_d_state|ssm_state_size|time_step_rank|mamba_dt_rank", "a state space"),
    (r"linear_num_(key_|value_)?heads", "linear attention"),
    (r"conv_L_cache|conv_kernel|mamba_d_conv|linear_conv_kernel_dim", "a convolution"),
    (r"rope_parameters", "rotary positions"),
    (r"alibi", "ALiBi"),
    (r"vision_config|audio_config", "the text part of a model that sees or hears"),
    (r"query_pre_attn_scalar|attention_multiplier", "a scale of attention"),
    (r"(final|attn)_logit_softcapping", "capped logits"),
)


def exercised() -> Mapping[str, str]:
    """Architecture, as a matrix spells it -> what it exercises, a phrase. Imports each configuration."""
    from transformers.utils import logging

    untyped: Any = logging
    before = untyped.get_verbosity()
    # What the classes say of their own defaults is no news here.
    untyped.set_verbosity_error()
    try:
        return {hyphenated(name): ", ".join(_words(one)) for name, one in architectures().items()}
    finally:
        untyped.set_verbosity(before)


def _words(one: Architecture) -> Iterator[str]:
    if one.kind == "seq2seq":
        yield "encoder and decoder"
    try:
        config = config_for(family_of(one))
    except UnsupportedByLibrary:
        return
    held: dict[str, Any] = {}
    for part in (config, config.get_text_config(decoder=True)):
        held |= vars(part)
    kinds = getattr(config.get_text_config(decoder=True), "layer_types", None)
    if isinstance(kinds, list) and len(set(map(str, kinds))) > 1:
        yield " and ".join(dict.fromkeys(str(kind).replace("_", " ") for kind in kinds)) + " in turn"
    for pattern, words in _WORDS:
        if any(re.fullmatch(pattern, name) and held[name] not in (None, False, 0) for name in held):
            yield words
    if held.get("tie_word_embeddings"):
        yield "tied embeddings"
