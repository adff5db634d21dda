"""Known causes of logits that depend on later tokens, on the length of the text, or on the cache."""

from __future__ import annotations

from typing import Final

from pytest_llmdevice.diagnosis.finding import Hint

LEAK: Final = Hint(
    "mask-error",
    "a mask error and no numeric noise: other tokens later on, in a text of the same length, change what the model "
    "says earlier; the causal mask is missing or off by one, or is not handed to the attention that is in use",
    "https://github.com/huggingface/transformers/pull/48770",
    when="tokens later on in a text of the same length were exchanged, and finite logits before them changed",
    inferred="parts",
)
LENGTH: Final = Hint(
    "depends-on-length",
    "no later token is looked at, and no rounding is that large: what the model computes depends on how long the text "
    "is, as a table of rotary angles does that is made again for longer texts, or a window counted from the end",
    "https://github.com/huggingface/transformers/issues/29496",
    when=(
        "most logits of a prefix by itself differ from those in the whole text by more than bfloat16 rounds, and "
        "exchanged tokens change nothing"
    ),
    inferred="cell",
)
NOISE: Final = Hint(
    "noise-of-a-half",
    "numeric noise and no mask error, but more than this dtype has: a part of the model, or its matrix products, "
    "computes in a lower precision",
    "https://github.com/huggingface/transformers/issues/25420",
    when="the same, by no more than bfloat16 rounds",
    inferred="cell",
)
FAR: Final = Hint(
    "far-positions",
    "short texts are right and long ones are not: rotary frequencies that were rounded, or positions that are counted "
    "in a half, which cannot tell 256 from 257 in bfloat16 and 2048 from 2049 in float16",
    "https://github.com/oarriaga/paz/pull/415",
    when=(
        "only far logits differ from a plain load's; they are right with position ids that are handed over, or a "
        "short text is wrong as soon as its positions are far ones"
    ),
)
UNSCALED: Final = Hint(
    "scaling-by-length",
    "the checkpoint has rotary positions that are scaled as soon as a text is longer than it was trained on (rope_type "
    "dynamic or longrope); they were not scaled, or from another length or by another factor",
    "https://github.com/vllm-project/vllm/pull/44158",
    when="only logits of a text longer than the original length differ from a plain load's",
)
CACHED: Final = Hint(
    "cache-changes-the-result",
    "a cache must not change what the model says: positions or a mask that count only the new tokens, a history that "
    "is kept in a lower precision or in the wrong order, or a cache that is kept from an earlier call",
    "https://github.com/MemTensor/MemOS/issues/2301",
    when="logits with a carried cache differ from those without one, and nothing else was found before",
    inferred="cell",
)
CACHE_DTYPE: Final = Hint(
    "cache-dtype",
    "the history is kept in another precision than it was computed in: a cache that was allocated with a dtype of its "
    "own, or cast when it was written",
    "https://github.com/jagmarques/nexusquant/pull/10",
    when="a cache is in another dtype than the cell's, or was rounded to one, and the layers compute in the cell's",
    inferred="cell",
)
CACHE_DEVICE: Final = Hint(
    "cache-device",
    "a layer's history belongs where the layer computes: the cache was allocated on one device for all layers, or was "
    "moved as a whole",
    "https://github.com/huggingface/transformers/issues/32624",
    when="a tensor of a cache is on another device than its layer computes on",
)
BEAMS: Final = Hint(
    "beams-not-reordered",
    "after each step of a beam search the rows of every layer's cache have to follow the beams that were kept",
    "https://github.com/huggingface/transformers/issues/46612",
    when="logits of a beam search differ from a forward pass over the tokens of its beams",
    inferred="cell",
)
STEPS: Final = Hint(
    "history-changes-new-tokens",
    "the target's own loop hands over a history that is not the text: positions or a mask that do not go on where the "
    "prompt ended, a history that was rounded, quantized, cut to a window or kept from an earlier call",
    "https://github.com/skyzh/tiny-llm/pull/46",
    when=(
        "the first new token is chosen from the right logits and a later one is not, and nothing else was found before"
    ),
    inferred="cell",
)
