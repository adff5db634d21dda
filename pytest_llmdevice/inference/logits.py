"""Computes logits with one forward pass, for decoders and encoder-decoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.errors import DoesNotApply
from pytest_llmdevice.inference.generation import inputs_for, is_encoder_decoder, pad_token
from pytest_llmdevice.model.own import own_of
from pytest_llmdevice.model.wrappers import (
    configuration_of,
    forward_arguments,
    is_of_transformers,
    required_argument,
    runnable_module,
)

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
        if (own := own_of(model)) is not None and own.logits is not None:
            return logits_of(own.logits(own.whole, inputs["input_ids"], inputs["attention_mask"]))
        return _of_all(model, logits_of(runnable_module(model)(**_accepted(model, inputs))), inputs)


def _accepted(model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What of `inputs` a model of one's own takes, by the names that it has for it; all of it for transformers' models.

    Raises:
        DoesNotApply: it takes no mask, and something is masked, or it takes no positions.
    """
    if is_of_transformers(model):
        return inputs
    module = runnable_module(model)
    names, takes_any = forward_arguments(module)
    if takes_any:
        # Whatever it takes by name, what it must have is called as its author likes.
        first = required_argument(module)
        if first is None or "input_ids" in names:
            return inputs
        return {first if name == "input_ids" else name: tensor for name, tensor in inputs.items()}
    taken = {name: tensor for name, tensor in inputs.items() if name in names}
    for name, tensor in inputs.items():
        if name in names or name == "input_ids":
            continue
        if name != "attention_mask" or not bool(tensor.all()):
            raise DoesNotApply(f"the forward of {type(model).__name__} takes no {name}")
    if "input_ids" not in names:
        first = next((name for name in names), None)
        if first is None:
            raise DoesNotApply(f"the forward of {type(model).__name__} takes no token ids; say logits in the target")
        taken[first] = inputs["input_ids"]
    return taken


def _of_all(model: Any, logits: torch.Tensor, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """`logits`, which are of each position.

    Raises:
        DoesNotApply: a model of one's own gave those of the last position alone.
    """
    length = inputs.get("decoder_input_ids", inputs["input_ids"]).shape[1]
    if logits.ndim == 3 and logits.shape[1] == 1 < length and not is_of_transformers(model):
        raise DoesNotApply(
            f"the forward of {type(model).__name__} gives the logits of the last position alone; have the target's "
            "`logits` give those of all"
        )
    return logits


def logits_of(output: Any) -> torch.Tensor:
    """The logits in the result of a forward pass: an output of transformers, a tuple, list or dict, or a tensor."""
    import torch

    if isinstance(output, dict) and "logits" in output:
        output = output["logits"]
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    logits: torch.Tensor = output if isinstance(output, torch.Tensor) else output.logits
    return logits
