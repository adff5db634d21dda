"""Feeding a model a text in pieces: with a cache that is carried from one to the next, or each time from the start."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.inference.generation import is_encoder_decoder
from pytest_llmdevice.inference.logits import logits_of
from pytest_llmdevice.model.device_map import embedding_device
from pytest_llmdevice.model.kv_cache import STATE_SPACE, cache_argument, cache_of
from pytest_llmdevice.model.names import accepted, configuration_of, runnable

if TYPE_CHECKING:
    import torch

LONG: Final = 272
"""Tokens of a long text: beyond 256, where bfloat16 stops counting exactly."""


@dataclass(frozen=True, slots=True)
class Feed:
    """One model and what its encoder reads, if it has one.

    Attributes:
        model: the model.
        source: token ids for the encoder of an encoder-decoder; a decoder has no use for them.
    """

    model: Any
    source: Sequence[int] = ()

    def __call__(
        self, tokens: Sequence[int], cache: Any = None, *, past: int = 0, use_cache: bool = False
    ) -> tuple[torch.Tensor, Any]:
        """The logits of `tokens`, float32 on the cpu of shape (tokens, vocabulary), and the cache after them.

        Args:
            tokens: token ids; for an encoder-decoder, what the decoder reads.
            cache: what the call before returned, None to start from nothing.
            past: how many tokens are in `cache`.
            use_cache: whether to ask for a cache. Some classes have none to give, and return None.
        """
        import torch

        device = embedding_device(self.model)
        ids = torch.tensor([list(tokens)], dtype=torch.long, device=device)
        known = accepted(self.model)
        given: dict[str, Any] = {"use_cache": use_cache} if "use_cache" in known else {}
        if is_encoder_decoder(self.model):
            given |= {"input_ids": ids.new_tensor([list(self.source)]), "decoder_input_ids": ids}
        else:
            given["input_ids"] = ids
            # A mask over a state's past has nothing to apply to.
            if STATE_SPACE not in known:
                given["attention_mask"] = ids.new_ones((1, past + len(tokens)))
        if cache is not None:
            given[cache_argument(known)] = cache
            # Transformers 4 cannot tell from a state how far it has come. `generate` counts from the size of the
            # convolution, however short the prompt was: a smaller number is where in it the token is written.
            if known >= {STATE_SPACE, "cache_position"}:
                first = past + getattr(configuration_of(self.model), "conv_kernel", 0)
                given["cache_position"] = torch.arange(first, first + len(tokens), device=device)
        with torch.inference_mode():
            output = runnable(self.model)(**given)
        return logits_of(output)[0].float().cpu(), cache_of(output)


def text(prompts: Sequence[Sequence[int]], length: int, seed: int = 0) -> list[int]:
    """`length` token ids drawn from those of the prompts, which the model is known to read."""
    known = sorted({token for prompt in prompts for token in prompt})
    return random.Random(seed).choices(known, k=length)  # noqa: S311  # no secret


def longest_text(model: Any, prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens a long text for `model` may have: `LONG`, or as many as it has positions for.

    Past its positions a model may raise, or scale them on purpose (`rope_type`), which makes what it says of the
    first tokens depend on how many follow. Plain rotary positions have no end; a table of them has, and what happens
    there (transformers#29496) is looked at where it is near.
    """
    config = _text_config(model)
    if config is None:
        return max(map(len, prompts))
    ends = [getattr(config, name, None) for name in ("max_position_embeddings", "original_max_position_embeddings")]
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    ends += [rope.get("original_max_position_embeddings")]
    known = [end for end in ends if isinstance(end, int) and end > 0]
    if not known:
        return LONG
    end = min(known)
    return end + _BEYOND if end <= _NEAR and _plain_rotary(model, rope) else min(end, LONG)


def positions(model: Any) -> int:
    """How many tokens the model has positions for, by its configuration; `UNLIMITED` where that says nothing."""
    config = _text_config(model)
    found = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions")]
    return min((end for end in found if isinstance(end, int) and end > 0), default=UNLIMITED)


UNLIMITED: Final = 1 << 30

_NEAR: Final = 512
_BEYOND: Final = 8


def _plain_rotary(model: Any, rope: Any) -> bool:
    kinds = {"default", None}
    parameters = [rope, *(inner for inner in rope.values() if isinstance(inner, dict))]
    if any(one.get("rope_type", one.get("type")) not in kinds for one in parameters):
        return False
    return any(name.rpartition(".")[2].endswith("inv_freq") for name, _ in model.named_buffers())


def sliding_window(model: Any) -> int | None:
    """How many tokens a sliding layer sees; None where there is no such layer."""
    window = getattr(_text_config(model), "sliding_window", None)
    return window if isinstance(window, int) and window > 0 else None


def _text_config(model: Any) -> Any:
    config = configuration_of(model)
    inner = getattr(config, "get_text_config", None)
    return inner(decoder=True) if callable(inner) else config
