"""One forward pass, for decoders and encoder-decoders alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_llmdevice.loading.generation import is_encoder_decoder, pad_token

if TYPE_CHECKING:
    import torch


def forward_logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits of shape (batch, length, vocabulary); length 1, the first token, for an encoder-decoder."""
    import torch

    if is_encoder_decoder(model):
        start = getattr(model.config, "decoder_start_token_id", None)
        ids = inputs["input_ids"]
        first = torch.full((ids.shape[0], 1), pad_token(model) if start is None else start, device=ids.device)
        inputs = {**inputs, "decoder_input_ids": first}
    with torch.inference_mode():
        logits: torch.Tensor = model(**inputs).logits
    return logits
