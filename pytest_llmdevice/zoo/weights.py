"""Initializes seeded weights with which context, positions and routing all influence the logits."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.zoo.families import PAD_TOKEN_ID, VOCAB_SIZE, Family

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

POSITION_SCALE: Final = 0.5
"""Standard deviation of learned absolute positions, comparable to that of token embeddings."""

NORM_SPREAD: Final = 0.1

QUERY_KEY_GAIN: Final = 1.5
"""A gain that spreads attention scores over more than one nat, so that no layer just averages its context."""

_QUERY_KEY_NAMES: Final = (
    "q_proj",
    "k_proj",
    "q_b_proj",
    "kv_b_proj",
    "query_key_value",
    "qkv_proj",
    "c_attn",
    ".q.weight",
    ".k.weight",
)

_ROUTER_NAMES: Final = ("block_sparse_moe.gate.weight", "mlp.gate.weight")

_RESIDUAL_WRITER_NAMES: Final = ("o_proj.weight", "down_proj.weight", "experts.down_proj", ".w2.weight")

SPECIAL_TOKEN_SCALE: Final = 0.25

TIED_SCALE: Final = 0.3
"""Of an embedding that is also the output embedding: a large one would make every token predict itself."""

_GEMMA_FINAL_NORM: Final = 3.0

_ROUTING_STRENGTH: Final = 3.0
"""The component of a token's embedding in the direction of its experts, in standard deviations of an embedding."""


def initialize(model: PreTrainedModel, family: Family, seed: int) -> None:
    """Overwrite the weights of `model` in place. The values depend only on `seed` and the parameter's name.

    Linear weights have variance 1 / fan-in, so that all layers add equally to the residual stream; norms and biases
    stay near the library's initial values.
    """
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if family.name == "mamba" and _initialize_state_space(name, parameter, generator(seed, name)):
                continue
            draw = torch.randn(parameter.shape, generator=generator(seed, name))
            if parameter.ndim == 1:
                parameter.add_(NORM_SPREAD * draw)
            else:
                parameter.copy_(draw * _scale(model, family, name, parameter))
        if family.name == "gemma3":
            # Its tied embedding is scaled only as an input embedding, so the final norm has to scale the logits.
            model.get_parameter("model.norm.weight").add_(_GEMMA_FINAL_NORM)
        if family.moe:
            _align_routers(model, seed)
            keep_routing_apart(model)
        for table in _vocabulary_tables(model):
            # Small rows keep the logits of special tokens below those of bytes, so that none is generated.
            table[PAD_TOKEN_ID:] *= SPECIAL_TOKEN_SCALE


def is_router(name: str) -> bool:
    """Whether a parameter of this name is the weight of a router, which chooses the experts of a token."""
    return name.endswith(_ROUTER_NAMES)


def keep_routing_apart(model: PreTrainedModel) -> None:
    """Remove the routers' directions from everything that layers add to the residual stream.

    Routing then depends on the token alone, with a margin that neither rounding nor calibration can close.
    """
    import torch

    parameters = dict(model.named_parameters())
    directions = next(parameter for name, parameter in parameters.items() if is_router(name))
    with torch.no_grad():
        for name, parameter in parameters.items():
            if name.endswith(_RESIDUAL_WRITER_NAMES):
                parameter.sub_(directions.T @ (directions @ parameter))


def generator(seed: int, name: str) -> torch.Generator:
    """A CPU generator for one seed and name, so that the draws for different names are independent."""
    import torch

    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _vocabulary_tables(model: PreTrainedModel) -> list[nn.Parameter]:
    """The input embedding and, unless the two are tied, the output embedding, of shape (vocabulary, hidden)."""
    untyped: Any = model
    tables = [untyped.get_input_embeddings().weight, untyped.get_output_embeddings().weight]
    return tables[:1] if tables[0] is tables[1] else tables


def _scale(model: PreTrainedModel, family: Family, name: str, parameter: nn.Parameter) -> float:
    from torch import nn

    owner = model.get_submodule(name.rpartition(".")[0])
    if isinstance(owner, nn.Embedding):
        if owner.num_embeddings != VOCAB_SIZE:
            return POSITION_SCALE if owner.embedding_dim == model.config.hidden_size else 1.0
        return _embedding_scale(family, owner.embedding_dim)
    if isinstance(owner, nn.Conv1d):
        return math.sqrt(1 / owner.kernel_size[0])
    # The weight of transformers' Conv1D is (in, out), unlike those of nn.Linear and stacked experts.
    fan_in = parameter.shape[0] if type(owner).__name__ == "Conv1D" else parameter.shape[-1]
    gain = QUERY_KEY_GAIN if any(part in name for part in _QUERY_KEY_NAMES) else 1.0
    if family.name == "t5" and name.endswith(".q.weight"):
        # T5 does not divide its scores by sqrt(d_kv); its query weights are smaller by that factor instead.
        gain /= math.sqrt(model.config.d_kv)
    return gain / math.sqrt(fan_in)


def _embedding_scale(family: Family, hidden_size: int) -> float:
    if not family.tied or family.kind == "seq2seq":
        return 1.0
    return TIED_SCALE / math.sqrt(hidden_size) if family.name == "gemma3" else TIED_SCALE


def _initialize_state_space(name: str, parameter: nn.Parameter, source: torch.Generator) -> bool:
    """Initialize `parameter` if it is one of a state space layer; returns whether it is.

    With the library's own ranges the layer keeps so little state that a tiny model forgets its first token.
    """
    import torch

    if name.endswith("A_log"):
        rates = torch.arange(1, parameter.shape[1] + 1, dtype=torch.float32) / 8
        parameter.copy_(torch.log(rates).expand_as(parameter))
    elif name.endswith("dt_proj.bias"):
        step = torch.empty(parameter.shape).uniform_(0.05, 0.5, generator=source)
        parameter.copy_(step + torch.log(-torch.expm1(-step)))
    elif name.endswith("mixer.D"):
        parameter.fill_(0.3)
    else:
        return False
    return True


def _align_routers(model: PreTrainedModel, seed: int) -> None:
    """Assign two experts to each token by its embedding, with a margin that rounding cannot close.

    Routers read a subspace in which every embedding points clearly towards two of the four experts and away from the
    others.
    """
    import torch

    embedding = _vocabulary_tables(model)[0]
    routers = [parameter for name, parameter in model.named_parameters() if is_router(name)]
    experts, hidden_size = routers[0].shape
    draw = torch.randn(hidden_size, experts, generator=generator(seed, "router"))
    directions = torch.linalg.qr(draw).Q.T
    for router in routers:
        router.copy_(directions)
    order = torch.rand(len(embedding), experts, generator=generator(seed, "experts")).argsort(dim=1)
    reach = torch.where(order < 2, _ROUTING_STRENGTH, -_ROUTING_STRENGTH)
    embedding.add_((reach - embedding @ directions.T) @ directions)
