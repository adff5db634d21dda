"""Says which findings in a plain load are properties of the architecture in transformers, and why.

Each entry was understood from the library's source, transformers 5.23. Placement, dtypes, values, ties and settings are
no properties of an architecture: no entry may excuse a finding of the checks in `NEVER`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

NEVER: Final = frozenset({"loads", "meta", "placement", "dtypes", "quantization", "values", "tied", "mode"})


@dataclass(frozen=True, slots=True)
class Property:
    """What an architecture does that a check cannot agree with.

    Attributes:
        names: a pattern of the names of architectures.
        checks: the names of the checks that see it.
        reason: what it does.
        where: a pattern of the places of its findings.
    """

    names: str
    checks: frozenset[str]
    reason: str
    where: str = r".*"


def _entry(names: str, checks: str, reason: str, where: str = r".*") -> Property:
    return Property(names, frozenset(checks.split()), reason, where)


PROPERTIES: Final = (
    _entry(
        r"(bart|plbart|mbart|mvp|blenderbot|blenderbot-small|bigbird_pegasus|pegasus|marian|trocr|whisper)(-decoder)?",
        "agreement padding inputs",
        "positions are counted by column, padding included (its embedding of positions is given no mask)",
    ),
    _entry(
        r"roberta|camembert|data2vec-text|xlm-roberta|xlm-roberta-xl|xmod|roberta-prelayernorm",
        "cache",
        "generate counts positions from 0, a forward pass by itself from behind the padding token",
        r"logits of beam .*|logits that generate .*|logits from which .*|.*generate.*|static cache.*",
    ),
    _entry(
        r"big_bird",
        "prefix",
        "after one short text it attends fully from then on (BigBirdModel.set_attention_type)",
        r"logits from position .*",
    ),
    _entry(
        r"cpmant",
        "agreement padding prefix cache sampling",
        "a prompt is read in both directions, behind tokens of its own",
    ),
    _entry(
        r"deepseek_v4",
        "agreement padding",
        "keys are compressed in windows of columns, padding included",
    ),
    _entry(
        r"doge",
        "padding prefix cache",
        "of keys with equal weights, which equal tokens have, it keeps any",
    ),
    _entry(
        r"fsmt",
        "padding cache sampling agreement",
        "with a cache its decoder reads one token at a time, and several of them in both directions",
    ),
    _entry(
        r"roformer",
        "agreement padding inputs",
        "positions are counted by column, padding included (rotary tables are read by past_key_values_length)",
    ),
    _entry(
        r"recurrent_gemma",
        "agreement padding inputs",
        "its recurrent layers are given the mask and do not use it (RecurrentGemmaRecurrentBlock)",
    ),
    _entry(
        r"switch_transformers|nllb-moe",
        "cache prefix",
        "an expert takes only so many tokens of one text (expert_capacity), and passes the others by",
        r"logits of (new tokens after a prompt|the first|a prompt|several|single|a second).*",
    ),
    _entry(
        r"rwkv",
        "agreement padding sampling inputs",
        "its state reads padding as text: there is no mask",
    ),
    _entry(
        r"reformer",
        "agreement padding",
        "positions that are given for a text that fills no chunk are refused, and chunks are of columns",
    ),
    _entry(
        r"prophetnet(-decoder)?",
        "agreement padding prefix cache sampling inputs",
        "what it says at a position depends on how long the text is, whatever follows (positions of its streams)",
    ),
    _entry(
        r"git",
        "agreement sampling padding",
        "after a text without a picture it widens the mask over tokens of a picture that its cache does not hold",
    ),
    _entry(
        r"minimax",
        "cache sampling",
        "the states of its linear layers do not follow the beams (MiniMaxCache has none of its own for them)",
        r"logits of beam .*|.*beams.*",
    ),
    _entry(
        r"moshi",
        "cache agreement",
        "its cache keeps a window, of which a pass without a cache knows nothing (create_causal_mask)",
    ),
    _entry(
        r"bamba",
        "cache",
        "after a cache it begins at position 0 again unless positions are given",
    ),
    _entry(
        r"jamba|falcon_mamba|zamba",
        "cache",
        "several tokens on a carried cache start from an empty state",
        r"logits of (a second prompt on a carried cache|several tokens on single ones).*",
    ),
)


def property_of(name: str, finding: tuple[str, str, str, str], quantization: str) -> str:
    """What about the architecture `name` makes the checks find `finding`; empty where it is a false alarm."""
    check, where, _, _ = finding
    assert quantization is not None
    if check in NEVER:
        return ""
    fitting = (
        entry
        for entry in PROPERTIES
        if check in entry.checks and re.fullmatch(entry.names, name) and re.fullmatch(entry.where, where)
    )
    return next((entry.reason for entry in fitting), "")
