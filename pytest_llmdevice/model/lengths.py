"""Says how long a text a model can read: the one place where lengths are read off a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.model.settings import count, setting, text_configuration
from pytest_llmdevice.model.wrappers import configuration_of, core

if TYPE_CHECKING:
    from torch import nn

NO_LIMIT: Final = 1 << 30
"""The limit of a model that counts positions and has none: ALiBi, relative positions, a state."""

_COUNTS: Final = (
    "max_position_embeddings",
    "n_positions",
    "max_target_positions",
    "max_decoder_position_embeddings",
    "max_encoder_position_embeddings",
    "max_seq_len",
    "n_ctx",
)
"""The names under which configurations say how many positions there are."""

_WINDOWS: Final = (
    "sliding_window",
    "sliding_window_size",
    "attention_window_size",
    "attention_chunk_size",
    "window_size",
)

_BY_LENGTH: Final = frozenset({"dynamic", "longrope"})
"""Types of rotary scaling that depend on how long a text is."""

_TABLE: Final = re.compile(r"(^|_)(w?pos(ition)?s?|wpe)(_|$)|position")
"""What the name of a table of positions contains."""

_RELATIVE: Final = re.compile(r"rel|bias|rotary")


def position_limit(model: Any) -> int:
    """The largest number of tokens that `model` has positions for; `NO_LIMIT` where nothing says there is an end.

    It is what its tables of learned positions leave: those of RoBERTa begin behind the padding token's id, those of
    OPT and BART at 2, and configurations count these in or leave them out as they like. Without a table, it is the
    number in the configuration.
    """
    config = configuration_of(model)
    tables = list(_tables(core(model)))
    counts = [found for name in _COUNTS if (found := count(config, name)) is not None]
    return min(tables or counts, default=NO_LIMIT)


def first_position(model: Any) -> int:
    """The position id of the first token, as callers give it: 0, or what follows the padding token's (RoBERTa).

    What a table is shifted by inside (`offset`, as in OPT) is no affair of a caller's.
    """
    tables = list(_embeddings(core(model)))
    return max((_first(table) for table in tables if not isinstance(_offset(table), int)), default=0)


def unscaled_length(model: Any) -> int:
    """The largest number of tokens that are read at their plain positions; `NO_LIMIT` where there is no such number.

    Past it a model may raise, or scale positions by design (`rope_type`), which makes the logits of the first tokens
    depend on how many follow.
    """
    config = text_configuration(configuration_of(model))
    original = [setting(config, "original_max_position_embeddings")]
    original += [entry.get("original_max_position_embeddings") for entry in rope_settings(model)]
    known = [end for end in original if isinstance(end, int) and not isinstance(end, bool) and end > 0]
    return min([position_limit(model), *known])


def plain_rotary(model: Any) -> bool:
    """Whether positions are rotary and nothing scales them, so that there is no last one."""
    if any(entry.get("rope_type", entry.get("type")) not in {"default", None} for entry in rope_settings(model)):
        return False
    return any(name.rpartition(".")[2].endswith("inv_freq") for name, _ in model.named_buffers())


def scales_with_length(model: Any) -> bool:
    """Whether rotary positions are others as soon as a text is longer than `unscaled_length`."""
    return any(entry.get("rope_type", entry.get("type")) in _BY_LENGTH for entry in rope_settings(model))


def rope_settings(model: Any) -> list[Mapping[str, Any]]:
    """The rotary settings of the model's text part, one for each type of layer that has its own."""
    config = configuration_of(model)
    rope = setting(config, "rope_parameters") or setting(config, "rope_scaling") or {}
    if not isinstance(rope, Mapping):
        return []
    return [rope, *(inner for inner in rope.values() if isinstance(inner, Mapping))]


def sliding_window(model: Any) -> int | None:
    """The window of the model's sliding-attention layers in tokens; None without such layers."""
    config = configuration_of(model)
    return next((window for name in _WINDOWS if (window := count(config, name)) is not None), None)


def _tables(module: nn.Module) -> Iterator[int]:
    """The number of tokens that each table of learned positions in `module` is long enough for."""
    for table in _embeddings(module):
        yield table.num_embeddings - _first(table)


def _embeddings(module: nn.Module) -> Iterator[nn.Embedding]:
    """The tables of learned positions in `module`, without those of pictures and sounds."""
    from torch import nn

    for key, child in module.named_children():
        if _other_than_text(child):
            continue
        if isinstance(child, nn.Embedding):
            if _TABLE.search(key) and not _RELATIVE.search(key) and child.num_embeddings > 1:
                yield child
        else:
            yield from _embeddings(child)


def _first(table: nn.Embedding) -> int:
    """The row of `table` that belongs to the first token."""
    offset = _offset(table)
    if isinstance(offset, int):
        return offset
    return 0 if table.padding_idx is None else int(table.padding_idx) + 1


def _offset(table: Any) -> object:
    return getattr(table, "offset", None)


def _other_than_text(module: Any) -> bool:
    """Whether `module` is the part of a model that sees or hears."""
    from transformers import PreTrainedModel

    return isinstance(module, PreTrainedModel) and module.main_input_name not in {"input_ids", "inputs_embeds"}
