"""Feeds a text to a model in pieces, with a cache that is carried from piece to piece, or without one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.inference.generation import inputs_for, is_encoder_decoder
from pytest_llmdevice.inference.logits import forward_logits, logits_of
from pytest_llmdevice.model.device_map import embedding_device
from pytest_llmdevice.model.kv_cache import STATE_SPACE, cache_argument, cache_of
from pytest_llmdevice.model.lengths import plain_rotary, scales_with_length, unscaled_length
from pytest_llmdevice.model.own import own_of
from pytest_llmdevice.model.wrappers import accepted_arguments, configuration_of, is_of_transformers, runnable_module

if TYPE_CHECKING:
    import torch

LONG_TEXT: Final = 272
"""Tokens of a long text: more than 256, up to which bfloat16 represents every integer."""

_NEAR: Final = 512
_BEYOND: Final = 8


@dataclass(frozen=True, slots=True)
class Stepper:
    """Runs one model on pieces of a text.

    Attributes:
        model: the model.
        source: token ids for the encoder of an encoder-decoder; unused for a decoder.
    """

    model: Any
    source: Sequence[int] = ()

    def __call__(
        self, tokens: Sequence[int], cache: Any = None, *, past: int = 0, use_cache: bool = False
    ) -> tuple[torch.Tensor, Any]:
        """Return the logits of `tokens`, float32 on the CPU of shape (tokens, vocabulary), and the cache after them.

        Args:
            tokens: token ids; for an encoder-decoder, the input of the decoder.
            cache: the cache that the previous call returned; None to start.
            past: how many tokens are in `cache`.
            use_cache: whether to ask for a cache. Some classes have none, and return None.
        """
        import torch

        if (own := own_of(self.model)) is not None and (own.logits is not None or not is_of_transformers(self.model)):
            # Nothing is known of the caches of a model of one's own.
            return forward_logits(self.model, inputs_for(self.model, [tokens]))[0].float().cpu(), None
        device = embedding_device(self.model)
        ids = torch.tensor([list(tokens)], dtype=torch.long, device=device)
        known = accepted_arguments(self.model)
        arguments: dict[str, Any] = {"use_cache": use_cache} if "use_cache" in known else {}
        if is_encoder_decoder(self.model):
            arguments |= {"input_ids": ids.new_tensor([list(self.source)]), "decoder_input_ids": ids}
        else:
            arguments["input_ids"] = ids
            # A state space model keeps no past tokens that a mask could hide.
            if STATE_SPACE not in known:
                arguments["attention_mask"] = ids.new_ones((1, past + len(tokens)))
        if cache is not None:
            arguments[cache_argument(known)] = cache
            # Transformers 4 cannot read the position from a state. Like `generate`, this counts from the size of the
            # convolution, however short the prompt was: a smaller number is an index into the convolution's state.
            if known >= {STATE_SPACE, "cache_position"}:
                first = past + getattr(configuration_of(self.model), "conv_kernel", 0)
                arguments["cache_position"] = torch.arange(first, first + len(tokens), device=device)
        with torch.no_grad():
            output = runnable_module(self.model)(**arguments)
        return logits_of(output)[0].float().cpu(), cache_of(output)


def random_text(prompts: Sequence[Sequence[int]], length: int, seed: int = 0) -> list[int]:
    """Draw `length` token ids from those of the prompts, which are in the model's vocabulary."""
    known = sorted({token for prompt in prompts for token in prompt})
    return random.Random(seed).choices(known, k=length)  # noqa: S311  # no secret


def longest_text_length(model: Any, prompts: Sequence[Sequence[int]]) -> int:
    """The length of a long text for `model`: `LONG_TEXT` tokens, or as many as it has positions for.

    Plain rotary positions are unlimited, but a precomputed table of them is not; if its end is near, the text goes
    beyond it to test for transformers#29496.
    """
    if configuration_of(model) is None:
        return max(map(len, prompts))
    end = unscaled_length(model)
    return end + _BEYOND if end <= _NEAR and plain_rotary(model) else min(end, LONG_TEXT)


def scaled_text_length(model: Any) -> int | None:
    """The length of a text that is past where `model` begins to scale its positions by the length of what it reads.

    None where it does not, or only for texts that are too long to try.
    """
    end = unscaled_length(model)
    if end > _NEAR or not scales_with_length(model):
        return None
    return min(2 * end, max(LONG_TEXT, end + _BEYOND))
