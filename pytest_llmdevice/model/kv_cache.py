"""Reads the KV cache of any model: its tensors by layer, its length, and the devices of the layers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.model.device_map import execution_device, with_index
from pytest_llmdevice.model.observation import observed
from pytest_llmdevice.model.wrappers import accepted_arguments

if TYPE_CHECKING:
    import torch
    from torch import nn

STATE_SPACE: Final = "cache_params"
"""The argument of models whose cache is a state of constant size, without a row for each token."""

CACHE_ARGUMENTS: Final = ("past_key_values", "past_key_value", "layer_past", STATE_SPACE, "cache", "state")
"""Names under which models take and return their cache, today's first."""

_LAST_PART: Final = re.compile(r"(?:^|\.)(?P<name>keys|values)$|(?:^|_cache)\[\d+\]\[(?P<index>\d+)\]$")
"""The end of a path in a cache: the attribute of a layer, or the place in the tuple of a layer."""

_STATE: Final = re.compile(r"\w*states?\b")
"""What holds states of constant size: `conv_states`, `recurrent_states`, `ssm_states`, `state`."""

_DEPTH: Final = 6
"""The maximum nesting of a cache: an encoder-decoder's holds two caches, which hold layers, which hold states."""


@dataclass(frozen=True, slots=True)
class CacheTensor:
    """One floating-point tensor of a cache.

    Attributes:
        name: its path in the cache, such as `layers[1].keys`.
        layer: the index of its layer; None if the path has none.
        tensor: the tensor.
    """

    name: str
    layer: int | None
    tensor: torch.Tensor

    @property
    def kind(self) -> str:
        """`"keys"` or `"values"`; empty for a state without a row for each token.

        Old versions keep tuples: the keys and the values of a layer, and of an encoder's output after them.
        """
        last = _LAST_PART.search(self.name)
        if last is None:
            return ""
        return last["name"] or ("keys", "values")[int(last["index"]) % 2]

    @property
    def state(self) -> str:
        """What the state is called, such as `"recurrent_states"`; empty for keys and values."""
        found = None if self.kind else _STATE.search(self.name)
        return found[0] if found is not None else ""


def cache_tensors(cache: Any) -> list[CacheTensor]:
    """The tensors of `cache`: tuples of old versions, or any object with tensors in public attributes."""
    return list(_walk(cache, "", None, 0))


def _walk(value: Any, name: str, layer: int | None, depth: int) -> Iterator[CacheTensor]:
    import torch

    if isinstance(value, torch.Tensor):
        if value.is_floating_point() and value.numel():
            yield CacheTensor(name.lstrip("."), layer, value)
    elif depth > _DEPTH:
        return
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _walk(inner, f"{name}[{index}]", index if layer is None else layer, depth + 1)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(
                inner, f"{name}[{key}]", key if layer is None and isinstance(key, int) else layer, depth + 1
            )
    elif not isinstance(value, (type, str, int, float)) and hasattr(value, "__dict__"):
        for key, inner in vars(value).items():
            # Private attributes hold packed values, or buffers for prefetching.
            if not key.startswith("_"):
                yield from _walk(inner, f"{name}.{key}", layer, depth + 1)


def layer_devices(model: nn.Module) -> dict[int, set[str]]:
    """Layer index (`layer_idx` in transformers) -> the devices on which the modules with that index compute.

    Empty if no module has an index. An index has several devices if the encoder numbers its layers too.
    """
    devices: dict[int, set[str]] = {}
    for module in model.modules():
        index = getattr(module, "layer_idx", None)
        if isinstance(index, int):
            devices.setdefault(index, set()).add(with_index(_computes_on(module)))
    return devices


def _computes_on(module: nn.Module) -> torch.device:
    """The device of the first hook in `module`, else of its first parameter that is not on `meta`."""
    for inner in module.modules():
        if getattr(inner, "_hf_hook", None) is not None:
            return execution_device(inner)
    for tensor in module.parameters():
        if not tensor.is_meta:
            return tensor.device
    return execution_device(module)


@contextmanager
def caches_used(model: nn.Module) -> Iterator[list[Any]]:
    """Record the caches that the model gets or returns inside the context, each once, in order of appearance."""
    caches: list[Any] = []

    def add(cache: Any) -> None:
        if cache is not None and not any(cache is known for known in caches):
            caches.append(cache)

    def after(_: nn.Module, __: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        if observed():
            add(cache_of(kwargs))
            add(cache_of(output))

    # An adapter forwards `generate` to the model inside it, which then is called instead of the adapter.
    inner = [module for module in model.modules() if hasattr(module, "prepare_inputs_for_generation")]
    modules = {id(module): module for module in (model, *inner)}.values()
    handles = [module.register_forward_hook(after, with_kwargs=True) for module in modules]
    try:
        yield caches
    finally:
        for handle in handles:
            handle.remove()


def is_offloaded(cache: Any) -> bool:
    """Whether the cache is of a kind that keeps layers in host memory until they are used."""
    parts = [cache, *(getattr(cache, name, None) for name in ("self_attention_cache", "cross_attention_cache"))]
    return any(bool(getattr(part, "offloading", False)) or "Offloaded" in type(part).__name__ for part in parts)


def cache_of(output: Any) -> Any:
    """The cache in the result of a forward pass or `generate`, or None."""
    for name in CACHE_ARGUMENTS:
        cache = output.get(name) if isinstance(output, dict) else getattr(output, name, None)
        if cache is not None:
            return cache
    return None


def is_state_space(model: Any) -> bool:
    """Whether the model's cache is a state of constant size, which takes new tokens one at a time."""
    return STATE_SPACE in accepted_arguments(model)


def cache_argument(known: frozenset[str]) -> str:
    """The name under which a forward pass that accepts the arguments `known` takes its cache."""
    return next((name for name in CACHE_ARGUMENTS if name in known), CACHE_ARGUMENTS[0])


def layer_tensors(cache: Any) -> Iterator[tuple[int, str, torch.Tensor]]:
    """(layer, "keys" or "values", tensor) of each tensor in `cache` that has a row for each token."""
    for held in cache_tensors(cache):
        if held.layer is not None and held.kind:
            yield held.layer, held.kind, held.tensor


def state_tensors(cache: Any) -> Iterator[tuple[int, str, torch.Tensor]]:
    """(layer, such as "conv_states", tensor) of each state in `cache` that has no row for each token."""
    for held in cache_tensors(cache):
        if held.layer is not None and held.state:
            yield held.layer, held.state, held.tensor


def cache_length(cache: Any) -> int | None:
    """The number of positions in `cache`; 0 for None, and None if the cache does not tell."""
    if cache is None:
        return 0
    try:
        if isinstance(cache, (tuple, list)):
            return int(cache[0][0].shape[-2]) if cache else 0
        return int(cache.get_seq_length())
    except Exception:  # noqa: BLE001  # a cache may be of anybody's class; one without positions has no length
        return None
