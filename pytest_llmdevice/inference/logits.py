"""Computes logits with one forward pass, for decoders and encoder-decoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.inference.generation import inputs_for, is_encoder_decoder, pad_token
from pytest_llmdevice.model.wrappers import configuration_of, runnable_module

if TYPE_CHECKING:
    import torch


def forward_logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute logits of shape (batch, length, vocabulary) for `input_ids` and `attention_mask` of (batch, length).

    The decoder of an encoder-decoder gets the same ids, shifted right by its start token, so that there are logits
    for each token of the prompt.
    """
    if is_encoder_decoder(model):
        inputs = {**inputs, "decoder_input_ids": _shifted(model, inputs["input_ids"])}
    return _logits(model, inputs)


def continuation_logits(model: Any, prompt: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
    """Compute the logits of each position of a continuation `tokens` of `prompt`, of shape (tokens, vocabulary).

    Row i holds the logits from which `tokens[i]` is chosen, given the prompt and the tokens before it. It is one
    forward pass without padding.
    """
    return batch_continuation_logits(model, prompt, [tokens])[0]


def batch_continuation_logits(model: Any, prompt: Sequence[int], rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Compute the same for several continuations of equal length in one pass, of shape (rows, tokens, vocabulary)."""
    if is_encoder_decoder(model):
        inputs = inputs_for(model, [prompt] * len(rows))
        ids = inputs["input_ids"].new_tensor([list(row) for row in rows])
        return _logits(model, {**inputs, "decoder_input_ids": _shifted(model, ids)})
    return _logits(model, inputs_for(model, [[*prompt, *row[:-1]] for row in rows]))[:, len(prompt) - 1 :]


def _shifted(model: Any, ids: torch.Tensor) -> torch.Tensor:
    import torch

    configured = getattr(configuration_of(model), "decoder_start_token_id", None)
    start = ids.new_full((ids.shape[0], 1), pad_token(model) if configured is None else configured)
    return torch.cat([start, ids[:, :-1]], dim=1)


def _logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    import torch

    with torch.no_grad():
        return logits_of(runnable_module(model)(**inputs))


def logits_of(output: Any) -> torch.Tensor:
    """The logits in the result of a forward pass: an output of transformers, a tuple or list, or a tensor."""
    import torch

    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    logits: torch.Tensor = output if isinstance(output, torch.Tensor) else output.logits
    return logits
