"""One walk through a cache of any kind, and one list of the names that caches go by."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pytest_llmdevice.model.kv_cache import (
    CACHE_ARGUMENTS,
    cache_argument,
    cache_length,
    cache_of,
    is_offloaded,
    layer_tensors,
)


def rows(count: int) -> torch.Tensor:
    return torch.zeros(1, 2, count, 4)


def layered(count: int, **more: Any) -> SimpleNamespace:
    layers = [SimpleNamespace(keys=rows(count), values=rows(count)) for _ in range(2)]
    return SimpleNamespace(layers=layers, get_seq_length=lambda: count, **more)


EVERY_LAYER = [(0, "keys"), (0, "values"), (1, "keys"), (1, "values")]


def kinds(cache: Any) -> list[tuple[int, str]]:
    return [(layer, kind) for layer, kind, _ in layer_tensors(cache)]


def test_keys_and_values_are_found_by_layer() -> None:
    assert kinds(layered(3)) == EVERY_LAYER


def test_tuples_of_old_versions_are_read_too() -> None:
    cache = tuple((rows(3), rows(3)) for _ in range(2))
    assert kinds(cache) == EVERY_LAYER
    assert cache_length(cache) == 3


def test_an_encoder_decoder_has_those_of_both_attentions() -> None:
    cache = SimpleNamespace(self_attention_cache=layered(2), cross_attention_cache=layered(5))
    assert kinds(cache) == EVERY_LAYER * 2
    tuples = tuple((rows(2), rows(2)) for _ in range(2))
    assert kinds(SimpleNamespace(self_attention_cache=tuples, cross_attention_cache=None)) == EVERY_LAYER
    old = tuple((rows(2), rows(2), rows(5), rows(5)) for _ in range(2))
    assert kinds(old) == [entry for layer in (EVERY_LAYER[:2], EVERY_LAYER[2:]) for entry in layer * 2]


def test_states_without_a_row_for_each_token_are_neither() -> None:
    cache = SimpleNamespace(layers=[SimpleNamespace(conv_states=rows(1), recurrent_states=rows(1))])
    assert kinds(cache) == []


def test_an_unknown_kind_has_nothing_and_no_length() -> None:
    assert kinds(object()) == []
    assert cache_length(object()) is None
    assert cache_length(None) == 0


class OffloadedCache(SimpleNamespace):
    pass


@pytest.mark.parametrize(
    "cache",
    [
        OffloadedCache(),
        SimpleNamespace(offloading=True),
        SimpleNamespace(self_attention_cache=SimpleNamespace(offloading=True), cross_attention_cache=layered(2)),
    ],
    ids=["by its class", "by its flag", "inside an encoder-decoder's"],
)
def test_a_cache_that_keeps_layers_elsewhere_is_known_however_it_says_so(cache: Any) -> None:
    assert is_offloaded(cache)
    assert not is_offloaded(layered(2))


@pytest.mark.parametrize("name", CACHE_ARGUMENTS)
def test_a_cache_is_found_under_every_name_that_it_is_handed_over_by(name: str) -> None:
    cache = layered(1)
    assert cache_of({name: cache}) is cache
    assert cache_of(SimpleNamespace(**{name: cache})) is cache
    assert cache_argument(frozenset({name, "input_ids"})) == name
