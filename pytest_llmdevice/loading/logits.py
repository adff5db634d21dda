"""One forward pass, for decoders and encoder-decoders alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_llmdevice.loading.generation import is_encoder_decoder, pad_token

if TYPE_CHECKING:
    import torch


def forward_logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits of shape (batch, length, vocabulary) for `input_ids` and `attention_mask` of (batch, length).

    An encoder-decoder gets the same ids, shifted right by its start token, as the decoder's input: a fixed
    text to continue, so that there is a position for each token of the prompt.
    """
    import torch

    if is_encoder_decoder(model):
        ids = inputs["input_ids"]
        configured = getattr(model.config, "decoder_start_token_id", None)
        start = ids.new_full((ids.shape[0], 1), pad_token(model) if configured is None else configured)
        inputs = {**inputs, "decoder_input_ids": torch.cat([start, ids[:, :-1]], dim=1)}
    with torch.inference_mode():
        logits: torch.Tensor = model(**inputs).logits
    return logits
