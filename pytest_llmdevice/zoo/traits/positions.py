"""Traits of positions: scaled rotary embeddings, and windows that are shorter than the prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.zoo.traits.trait import Trait

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

SHORT_WINDOW: Final = 4
"""Tokens: fewer than the shortest prompt has."""

DYNAMIC_FROM: Final = 64
"""Tokens up to which dynamic scaling leaves positions alone: more than a prompt and its continuation, because past it
what a row says depends on how long the others of its batch are; and few enough that a check can go past it."""

LONG_FROM: Final = 1024
"""Tokens from which on a text is long for `longrope`: more than any check reads. A text that gets long turns all of its
positions at once, and keys that are cached stay as they were, so that even a plain load contradicts itself there."""

_LONGEST_FACTOR: Final = 32.0
"""By how much the slowest pair of dimensions is slowed down in a long text."""

_SCALED: Final = 128
"""The length that was trained on before scaling, in tokens."""

_SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": _SCALED},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": _SCALED // 2,
    },
}


def _not_rotary(config: PreTrainedConfig) -> str | None:
    settings = _rotary(config)
    if not isinstance(settings, dict) or not settings:
        return "it has no rotary positions"
    if not _scalable(settings):
        return "its rotary positions are scaled already"
    return None


def _uncounted(config: PreTrainedConfig) -> str | None:
    if why := _not_rotary(config):
        return why
    counted = isinstance(getattr(config, "max_position_embeddings", None), int)
    return None if counted else "its configuration says no number of positions to scale from"


def _settings(kind: str, config: Any) -> dict[str, Any]:
    """What the rotary settings of `config` have besides their base, when they are scaled as `kind` says."""
    if kind != "longrope":
        return dict(_SETTINGS[kind])
    pairs = _pairs(config)
    return {
        # A factor for each pair of dimensions, which grows as frequencies get slow; of short texts too, as in Phi-3.5.
        "short_factor": [1.0 + pair / pairs for pair in range(pairs)],
        "long_factor": [1.0 + _LONGEST_FACTOR * pair / pairs for pair in range(pairs)],
        "factor": 4.0,
        "original_max_position_embeddings": LONG_FROM,
    }


def _pairs(config: Any) -> int:
    """How many pairs of dimensions of a head are turned."""
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    settings = _rotary(config)
    partial = settings.get("partial_rotary_factor") or getattr(config, "partial_rotary_factor", None) or 1.0
    return int(width * partial) // 2


def _rotary(config: Any) -> Any:
    """The settings of rotary positions; before transformers 5 a base (`rope_theta`) and, where it is scaled, how."""
    if hasattr(config, "rope_parameters"):
        return config.rope_parameters
    if getattr(config, "rope_theta", None) is None:
        return None
    return getattr(config, "rope_scaling", None) or {"rope_theta": config.rope_theta}


def _scalable(settings: Mapping[str, Any]) -> list[str | None]:
    """The layer types whose positions can be scaled; [None] where there is one setting for all layers.

    Of several types, only those that see far: real checkpoints leave sliding layers alone.
    """
    nested = {kind: value for kind, value in settings.items() if isinstance(value, dict)}
    if not nested:
        return [None] if settings.get("rope_type", "default") == "default" else []
    plain = [kind for kind, value in nested.items() if value.get("rope_type", "default") == "default"]
    return [kind for kind in plain if kind == "full_attention"]


def _scaled(kind: str) -> Callable[[PreTrainedConfig], None]:
    def configure(config: PreTrainedConfig) -> None:
        untyped: Any = config
        settings, scaled = dict(_rotary(untyped)), _settings(kind, untyped)
        if kind == "dynamic":
            # It is scaled from there on, whatever an original length says.
            untyped.max_position_embeddings = DYNAMIC_FROM
        if kind == "longrope" and hasattr(untyped, "original_max_position_embeddings"):
            untyped.original_max_position_embeddings = LONG_FROM
        if not hasattr(untyped, "rope_parameters"):
            untyped.rope_scaling = {"rope_type": kind, **scaled}
            return
        for layer in _scalable(settings):
            if layer is None:
                settings |= {"rope_type": kind, **scaled}
            else:
                settings[layer] = {**settings[layer], "rope_type": kind, **scaled}
        untyped.rope_parameters = settings

    return configure


def _scaling(kind: str, why: str, source: str) -> Trait:
    return Trait(
        f"rope-{kind}",
        f"rotary positions scaled: {kind}",
        why,
        source,
        "models with rotary positions",
        refusal=_uncounted if kind == "dynamic" else _not_rotary,
        configure=_scaled(kind),
    )


def _window(config: PreTrainedConfig) -> str | None:
    return None if isinstance(getattr(config, "sliding_window", None), int) else "it has no sliding window"


def _shorten(config: PreTrainedConfig) -> None:
    untyped: Any = config
    untyped.sliding_window = SHORT_WINDOW


TRAITS: Final = (
    _scaling(
        "linear",
        "Gemma 3 divides the positions of its full layers by 8, and long Llama and Vicuna variants all of theirs.",
        "https://huggingface.co/google/gemma-3-4b-it/blob/main/config.json",
    ),
    _scaling(
        "dynamic",
        "InternLM 2 scales where a text is longer than the positions that its configuration says.",
        "https://huggingface.co/internlm/internlm2_5-7b-chat/blob/main/config.json",
    ),
    _scaling(
        "longrope",
        "Phi-3 and Phi-3.5 have a factor for each pair of dimensions, and others for texts past 4096 tokens.",
        "https://huggingface.co/microsoft/Phi-3.5-mini-instruct/blob/main/config.json",
    ),
    _scaling(
        "yarn",
        "DeepSeek-V3 and gpt-oss are published with YaRN, which scales attention too.",
        "https://huggingface.co/deepseek-ai/DeepSeek-V3/blob/main/config.json",
    ),
    _scaling(
        "llama3",
        "Llama 3.1 and later scale slow frequencies only.",
        "https://huggingface.co/meta-llama/Llama-3.1-8B/blob/main/config.json",
    ),
    Trait(
        "short-window",
        f"a sliding window of {SHORT_WINDOW} tokens, shorter than every prompt",
        "Mistral, Gemma and gpt-oss (128 tokens) forget what a prompt begins with, which short prompts never show.",
        "https://huggingface.co/openai/gpt-oss-20b/blob/main/config.json",
        "models with a sliding window",
        refusal=_window,
        configure=_shorten,
    ),
)
