"""Reduces the default configuration of any architecture of transformers to a tiny one of the same build.

The class itself says what there is to reduce: every argument whose name is known as a width, a count of heads, a number
of experts and so on gets a small value, and of the layers one of each kind stays. Nested configurations are reduced in
the same way. What names alone cannot tell is in `exceptions`.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.zoo.families import BOS_TOKEN_ID, EOS_TOKEN_ID, MAX_LENGTH, PAD_TOKEN_ID
from pytest_llmdevice.zoo.sizes import EXPERTS, HEAD_WIDTH, HEADS, LAYERS, counts_key_value_heads, size_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_GIVEN: Final[Mapping[str, Any]] = {
    "head_dim": HEAD_WIDTH,
    "num_key_value_heads": 2,
    "n_routed_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
}
"""Arguments without a usable default (None), which the models of some classes need."""

_LAYER_COUNTS: Final = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")

_START: Final = "decoder_start_token_id"

_TOKENS: Final[Mapping[str, int]] = {
    "pad_token_id": PAD_TOKEN_ID,
    "bos_token_id": BOS_TOKEN_ID,
    "eos_token_id": EOS_TOKEN_ID,
}

_TOKEN_NAME: Final = re.compile(r"\w*_token_(id|index)|\w+_token_ids?")

FIRST_RESERVED: Final = EOS_TOKEN_ID + 2
"""The first token id that no text holds and the tokenizer has no use for: for tokens of pictures and the like."""


def reduced(config: PreTrainedConfig, *, decoder: bool = False) -> dict[str, Any]:
    """The arguments with which the class of `config` makes a tiny configuration of the build of `config`.

    Args:
        config: a default configuration.
        decoder: whether a decoder by itself is wanted, also of a class that describes an encoder too.
    """
    # Not `getattr`, which refuses what differs between layers. An argument may be kept under another name.
    held, names = vars(config), {name: config.attribute_map.get(name, name) for name in arguments_of(type(config))}
    values = {name: held[names[name]] for name in sorted(names) if names[name] in held}
    kept, layers = _kept_layers(values)
    found: dict[str, Any] = {}
    for name, value in values.items():
        small = _reduced_value(name, value, values, kept, layers)
        if small is not _SAME:
            found[name] = small
    found |= _tokens(values)
    if decoder:
        found |= {name: value for name, value in _DECODER.items() if name in values}
    elif config.is_encoder_decoder:
        found.setdefault(_START, PAD_TOKEN_ID)
    return found


_SAME: Final = object()

_DECODER: Final = {"is_decoder": True, "is_encoder_decoder": False, "add_cross_attention": False}


def says_token(name: str) -> bool:
    """Whether an argument called `name` is the id of a token."""
    return _TOKEN_NAME.fullmatch(name) is not None


def _reduced_value(name: str, value: Any, values: Mapping[str, Any], kept: Sequence[int], layers: int) -> Any:
    if hasattr(value, "to_dict") and hasattr(value, "model_type"):
        return {**reduced(value), "model_type": value.model_type}
    if name in _LAYER_COUNTS and isinstance(value, int):
        return len(kept) if value == layers else min(value, LAYERS)
    if value is None:
        return _GIVEN.get(name, _SAME)
    if isinstance(value, bool):
        return _SAME
    if isinstance(value, int):
        return _reduced_number(name, value, values)
    if isinstance(value, (list, tuple)) and layers and kept:
        return _reduced_list(value, kept, layers)
    if isinstance(value, Mapping) and re.fullmatch(r"rope_(parameters|scaling)", name):
        return _reduced_rope(value)
    return _SAME


def _reduced_number(name: str, value: int, values: Mapping[str, Any]) -> Any:
    if counts_key_value_heads(name):
        heads = next((values[key] for key in ("num_attention_heads", "n_heads", "num_heads") if key in values), value)
        return HEADS if value == heads else 1 if value == 1 else 2
    size = size_of(name)
    return size if size is not None and value > size else _SAME


def _reduced_rope(value: Mapping[str, Any]) -> Any:
    """Rotary settings whose original length, beyond which positions are scaled, is no longer than the model's."""
    changed = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            changed[key] = _reduced_rope(inner)
        elif key == "original_max_position_embeddings" and isinstance(inner, int):
            changed[key] = min(inner, MAX_LENGTH)
        elif key == "mrope_section":
            changed[key] = [HEAD_WIDTH // 4, HEAD_WIDTH // 8, HEAD_WIDTH // 8]
        else:
            changed[key] = inner
    return changed


def _tokens(values: Mapping[str, Any]) -> dict[str, Any]:
    """Ids of special tokens that the zoo's tokenizer has, each other one a reserved id of its own."""
    found: dict[str, Any] = {}
    others = [name for name in values if _TOKEN_NAME.fullmatch(name) and name not in {*_TOKENS, _START}]
    found |= {name: token for name, token in _TOKENS.items() if name in values}
    if values.get(_START) is not None:
        # The token that the class starts with by default, for a class may count from behind the padding token's id.
        same = (token for name, token in _TOKENS.items() if values.get(name) == values[_START])
        found[_START] = next(same, PAD_TOKEN_ID)
    for number, name in enumerate(name for name in others if isinstance(values[name], int)):
        found[name] = FIRST_RESERVED + number
    return found


def _kept_layers(values: Mapping[str, Any]) -> tuple[list[int], int]:
    """The layers that stay, one of each kind in their order and at least `LAYERS`, and how many there are by default.

    Layers whose kind is computed from a period, and not listed, are in `exceptions`.
    """
    count = next((values[name] for name in _LAYER_COUNTS if isinstance(values.get(name), int)), 0)
    kinds: dict[tuple[Any, ...], int] = {}
    members = [value for value in values.values() if _are_indices(value, count)]
    columns = [value for value in values.values() if _is_column(value, count)]
    for layer in range(count):
        kind = (*(str(column[layer]) for column in columns), *(layer in member for member in members))
        kinds.setdefault(kind, layer)
    kept = sorted(kinds.values())
    others = iter(layer for layer in range(count) if layer not in kept)
    while 0 < len(kept) < LAYERS and (other := next(others, None)) is not None:
        kept = sorted([*kept, other])
    return kept, count


def _are_indices(value: Any, count: int) -> bool:
    """Whether `value` is a list of the numbers of layers that are of one kind."""
    if not isinstance(value, (list, tuple)) or not value or any(isinstance(one, bool) for one in value):
        return False
    return all(isinstance(one, int) and 0 <= one < count for one in value) and list(value) == sorted(set(value))


def _is_column(value: Any, count: int) -> bool:
    """Whether `value` is a list with an entry for each layer."""
    return isinstance(value, (list, tuple)) and len(value) == count > 0 and not _are_indices(value, count)


def _reduced_list(value: Sequence[Any], kept: Sequence[int], layers: int) -> Any:
    if _is_column(value, layers):
        return [value[layer] for layer in kept]
    if _are_indices(value, layers):
        return [place for place, layer in enumerate(kept) if layer in value]
    return _SAME


_GENERAL: Final = frozenset(
    {"id2label", "label2id", "problem_type", "dtype", "output_attentions", "output_hidden_states", "architectures"}
)
"""Arguments of every configuration that say nothing about the build of the model."""


def arguments_of(config_class: type) -> frozenset[str]:
    """The names of the arguments that a configuration class takes."""
    if dataclasses.is_dataclass(config_class):
        names = {field.name for field in dataclasses.fields(config_class) if field.init}
    else:
        names = set(inspect.signature(config_class).parameters)
    return frozenset(names - {"self", "kwargs", "args"} - _GENERAL)
