"""Initializes the weights of any architecture so that each of them has an influence that checks can see."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.zoo.families import PAD_TOKEN_ID, VOCAB_SIZE
from pytest_llmdevice.zoo.weights import (
    NORM_SPREAD,
    POSITION_SCALE,
    QUERY_KEY_GAIN,
    SPECIAL_TOKEN_SCALE,
    TIED_SCALE,
    generator,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

_RECURRENT: Final = re.compile(
    r"(A_log|dt_bias|dt_proj\.bias|\bD|recurrent_param|time_decay|time_first|time_mix\w*|decay|slope\w*|"
    r"[fi]gate_preact\.bias|lambda_\w+|altup\w*)(\.weight)?$"
)
"""Names of parameters of recurrences, whose range decides how much is remembered: the library's own values stay."""

_QUERY_KEY: Final = re.compile(
    r"(^|\.)(q|k|query|key|q_\w*proj|k_\w*proj|wq|wk|c_attn|qkv\w*|query_key_value|Wqkv)\.weight$"
)


def spread(model: nn.Module, seed: int) -> None:
    """Overwrite the weights of `model` in place; the values depend on `seed` and on names only.

    Matrices have variance 1 / inputs, so that all layers add about equally to the residual stream; embeddings are of
    the size of what follows a norm. What has one dimension stays near the library's initial value.
    """
    import torch

    untyped: Any = model
    table, head = untyped.get_input_embeddings(), untyped.get_output_embeddings()
    tied = head is not None and table is not None and head.weight is table.weight
    owners = {id(weight): module for module in model.modules() for weight in module.parameters(recurse=False)}
    undivided = {id(weight): width for weight, width in _undivided(model)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw = torch.randn(parameter.shape, generator=generator(seed, name))
            if is_recurrent(name) and bool(parameter.isfinite().all()):
                continue
            if parameter.ndim <= 1:
                start = parameter if bool(parameter.isfinite().all()) else torch.ones_like(parameter)
                parameter.copy_(start + NORM_SPREAD * draw)
                continue
            scale = _scale(owners[id(parameter)], name, parameter, tied=tied)
            parameter.copy_(draw * scale / math.sqrt(undivided.get(id(parameter), 1)))
        for module in () if table is None else (table, head):
            weight = getattr(module, "weight", None)
            if weight is not None and weight.shape[0] == VOCAB_SIZE and (module is table or not tied):
                # Small rows keep the logits of special tokens below those of bytes, so that none is generated.
                weight[PAD_TOKEN_ID:] *= SPECIAL_TOKEN_SCALE


def _undivided(model: nn.Module) -> Iterator[tuple[nn.Parameter, int]]:
    """The query weights of attention that does not divide its scores, and the width of its heads.

    T5 and its kin have smaller ones instead (`_init_weights`). With others a softmax has one key win, by a score whose
    rounding in half precision turns which.
    """
    for module in model.modules():
        width, query = getattr(module, "key_value_proj_dim", None), getattr(module, "q", None)
        if isinstance(width, int) and query is not None:
            yield query.weight, width


def is_recurrent(name: str) -> bool:
    """Whether a parameter of this name decides how much a recurrence remembers."""
    return _RECURRENT.search(name) is not None


def _scale(owner: nn.Module, name: str, parameter: torch.Tensor, *, tied: bool) -> float:
    from torch import nn

    if isinstance(owner, nn.Embedding):
        if owner.num_embeddings != VOCAB_SIZE:
            return POSITION_SCALE
        # Some classes scale it up.
        scale = TIED_SCALE if tied else 1.0
        factor = getattr(owner, "embed_scale", getattr(owner, "scalar_embed_scale", 1.0))
        return scale / float(factor)
    # transformers' Conv1D is (inputs, outputs), unlike linear layers.
    inputs = parameter.shape[0] if type(owner).__name__ == "Conv1D" else math.prod(parameter.shape[1:])
    if parameter.ndim == 3 and not isinstance(owner, nn.Conv1d):
        inputs = parameter.shape[-1]
    return (QUERY_KEY_GAIN if _QUERY_KEY.search(name) else 1.0) / math.sqrt(max(inputs, 1))
