"""Says which findings in a plain load are properties of the architecture in transformers, and why.

Reasons that name a function, a setting or a class were read in the source of transformers 5.23; the others say what
was measured on a plain load. Placement, dtypes, values, ties and settings are no properties of an architecture: no
entry may excuse a finding of the checks in `NEVER`, but for places under a map that the library chooses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

NEVER: Final = frozenset({"loads", "meta", "placement", "dtypes", "values", "tied", "mode"})


@dataclass(frozen=True, slots=True)
class Property:
    """What an architecture does that a check cannot agree with.

    Attributes:
        names: a pattern of the names of architectures.
        checks: the names of the checks that see it.
        reason: what it does.
        where: a pattern of the places of its findings.
        dtypes: the dtypes in which it does so; empty for all.
        packed: whether it does so only where weights are packed.
        mapped: whether it does so only where the library chooses a map for several cards.
    """

    names: str
    checks: frozenset[str]
    reason: str
    where: str = r".*"
    dtypes: frozenset[str] = frozenset()
    packed: bool = False
    mapped: bool = False


def _entry(
    names: str,
    checks: str,
    reason: str,
    where: str = r".*",
    dtypes: str = "",
    *,
    packed: bool = False,
    mapped: bool = False,
) -> Property:
    return Property(names, frozenset(checks.split()), reason, where, frozenset(dtypes.split()), packed, mapped)


HALVES: Final = "float16 bfloat16"

AUTOMATIC: Final = frozenset({"auto", "balanced", "sequential"})

RUNS: Final = "forward generation agreement padding prefix cache sampling save"
"""The checks that run the model."""

_CUT: Final = (
    r"xlm|openai-gpt|roc_bert|led|fsmt|electra|biogpt|bert-generation|"
    r"(prophetnet|pegasus|mvp|marian|blenderbot|blenderbot-small)(-decoder)?"
)
"""Architectures whose `_no_split_modules` is empty."""


PROPERTIES: Final = (
    _entry(
        r"(bart|plbart|mbart|mvp|blenderbot|blenderbot-small|bigbird_pegasus|pegasus|marian)-decoder|trocr|whisper",
        "agreement padding",
        "positions are counted by column, padding included (its embedding of positions is given no mask)",
    ),
    _entry(
        r"roberta|camembert|data2vec-text|xlm-roberta|xlm-roberta-xl|xmod|roberta-prelayernorm",
        "cache",
        "generate counts positions from 0 (_prepare_position_ids_for_generation), a forward pass by itself from "
        "behind the padding token (create_position_ids_from_input_ids)",
        r"logits of beam .*|logits that generate .*|logits from which .*|.*generate.*|static cache.*",
    ),
    _entry(
        r"big_bird",
        "prefix",
        "a long text is read in blocks and in both directions, and after one short text fully from then on "
        "(BigBirdModel.set_attention_type)",
        r"logits from position .*",
    ),
    _entry(
        r"cpmant",
        "agreement padding prefix cache",
        "a text is read in both directions (its context is all ones), behind tokens of its own, and padding is token 0 "
        "whatever the mask (CpmAntModel.forward)",
    ),
    _entry(
        r"deepseek_v4",
        "agreement padding",
        "keys are compressed in windows of columns, padding included (its compressors are given no mask)",
    ),
    _entry(
        r"doge",
        "padding prefix cache",
        "of keys with equal weights, which equal tokens have, topk keeps any (DogeAttention.prepare_dynamic_mask)",
    ),
    _entry(
        r"fsmt",
        "padding cache",
        "with a cache its decoder is given neither a causal nor a padding mask, so that several tokens at once are "
        "read in both directions (FSMTModel.forward)",
    ),
    _entry(
        r"nemotron_h|nemo_speechlm|zamba2",
        "cache",
        "a scan bounds its time steps from below, a single step does not (time_step_min), in float64 too",
        r"logits (of (new tokens|token by token|single tokens|a second prompt|beam \d+)|that generate chooses).*",
    ),
    _entry(
        r"roformer",
        "agreement padding",
        "positions are counted by column, padding included (rotary tables are read by past_key_values_length)",
    ),
    _entry(
        r"recurrent_gemma",
        "agreement padding",
        "its recurrent layers are given the mask and do not use it (RecurrentGemmaRecurrentBlock)",
    ),
    _entry(
        r"switch_transformers",
        "cache",
        "an expert takes only so many tokens of one text (expert_capacity), and passes the others by",
        r"logits of (new tokens after a prompt|the first|a prompt|several|single|a second).*",
    ),
    _entry(
        r"rwkv|xlstm",
        "agreement padding",
        "its state reads padding as text: its forward pass takes no mask",
    ),
    _entry(
        r"rwkv|xlstm",
        "sampling",
        "beams cannot be searched, for the state cannot be reordered",
        r".*beam.*",
    ),
    _entry(
        r"xlm|xlnet",
        "agreement prefix cache",
        "a text is read in both directions (causal is false, attn_type is bi)",
    ),
    _entry(
        r"reformer",
        "agreement padding",
        "positions that are given for a text that fills no chunk are refused, and chunks are of columns",
    ),
    _entry(
        r"prophetnet(-decoder)?",
        "agreement padding prefix cache sampling",
        "heads and positions of its buckets are mixed up, so that what it says at a position depends on how long the "
        "text is (get_predict_relative_pos_embeddings)",
    ),
    _entry(
        r"git",
        "agreement sampling",
        "after a text without a picture it widens the mask over tokens of a picture that its cache does not hold",
    ),
    _entry(
        r"minimax",
        "cache",
        "the states of its linear layers do not follow the beams (MiniMaxCache has none of its own for them)",
        r"logits of beam .*|.*beams.*",
    ),
    _entry(
        r"moshi",
        "cache",
        "its cache keeps a window (DynamicCache reads sliding_window), of which a pass without a cache knows nothing "
        "(MoshiModel calls create_causal_mask)",
    ),
    _entry(
        r"bamba",
        "cache",
        "after a cache it begins at position 0 again unless positions are given (BambaModel.forward)",
    ),
    _entry(
        r"jamba|zamba",
        "cache",
        "several tokens on a carried cache start from an empty state (mamba_selective_scan is given none)",
        r"logits of (a second prompt on a carried cache|several tokens on single ones).*",
    ),
    _entry(
        r"mixtral|dbrx|switch_transformers|longcat_flash",
        "agreement",
        "where rounding changes which experts weigh most, a router takes others, and that one token is another",
        r"logits, first at .*|prompt \d+, new token .*",
        HALVES,
    ),
    _entry(
        r"mamba",
        RUNS,
        "it multiplies the weight of dt_proj by itself, packed as it is (MambaMixer)",
        r".*, in backbone\.layers\.\d+\.mixer",
        packed=True,
    ),
    _entry(
        r"xlstm",
        "prefix cache save",
        "with a carried state a chunk multiplies that in float32 with what is not (mlstm_backend)",
        r".*, in backbone\.blocks\.\d+\.mlstm_layer\.mlstm_backend",
        HALVES,
    ),
    _entry(
        r"xlnet",
        RUNS,
        "its attention multiplies float32 with what is not (XLNetRelativeAttention)",
        r".*, in transformer\.layer\.\d+\.rel_attn",
        HALVES,
    ),
    _entry(
        r"reformer",
        RUNS,
        "its table of positions stays in float32 (AxialPositionEmbeddings), which its layers do not take",
        r".*, in reformer\.encoder\.layers\.\d+\.attention\.layer_norm",
        HALVES,
    ),
    _entry(
        r"zamba",
        "agreement cache",
        "its state is multiplied twice by what is read from what half precision rounded (llmdevice-choices.json says "
        "that this turns what it says)",
        r"logits, first at .*|prompt \d+, new token .*|logits of (a second prompt|several tokens).*",
        HALVES,
    ),
    _entry(
        r"nemo_speechlm",
        "save",
        "its first weight stays in float32 (the audio tower), and is what a saved configuration says of all "
        "(PreTrainedModel.dtype)",
        r"dtype in the saved config\.json|.*, reloaded",
        HALVES,
    ),
    _entry(
        _CUT,
        RUNS,
        "its class names no modules that stay whole (_no_split_modules), and an automatic map cuts through its layers",
        mapped=True,
    ),
    _entry(
        r"xlm|openai-gpt",
        "placement",
        "a table directly in a module that an automatic map takes apart stays on the cpu (expand_device_map)",
        r"transformer\.position_ids",
        mapped=True,
    ),
    _entry(
        r"bart|plbart|mbart|pegasus|mvp|marian|led|blenderbot(-small)?|bigbird_pegasus",
        "placement",
        "an automatic map names a buffer of the outermost module, which is put where the hook of that module sends its "
        "inputs (dispatch_model)",
        r"final_logits_bias",
        mapped=True,
    ),
    _entry(
        r"whisper|pegasus_x|(mbart|bart|bigbird_pegasus)(-decoder)?",
        "cache",
        "the length of a static cache is on the card of its first layer (StaticLayer), and positions are counted from "
        "it on that of the embedding",
        r"cache, in model\.decoder",
        mapped=True,
    ),
)


def property_of(
    name: str, finding: tuple[str, str, str, str], quantization: str, dtype: str = "float32", strategy: str = "to"
) -> str:
    """What about the architecture `name` makes the checks find `finding`; empty where it is a false alarm."""
    check, where, _, _ = finding
    mapped = strategy in AUTOMATIC
    if check in NEVER and not (check == "placement" and mapped):
        return ""
    if check == "quantization" and quantization != "none" and re.search(r"expert", where):
        return "bitsandbytes leaves stacks of experts dense, as the default matrix declares"
    fitting = (
        entry
        for entry in PROPERTIES
        if check in entry.checks
        and (not entry.dtypes or dtype in entry.dtypes)
        and (not entry.packed or quantization != "none")
        and (not entry.mapped or mapped)
        and re.fullmatch(entry.names, name)
        and re.fullmatch(entry.where, where)
    )
    return next((entry.reason for entry in fitting), "")
