"""What a cache holds, by name and layer, and where the layers compute that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.model.device_map import execution_device, with_index
from pytest_llmdevice.model.names import accepted

if TYPE_CHECKING:
    import torch
    from torch import nn

_DEPTH: Final = 6
"""How deep a cache may be nested: an encoder-decoder's has two, each with layers, each with states."""


@dataclass(frozen=True, slots=True)
class Held:
    """One floating-point tensor of a cache.

    Attributes:
        name: such as `layers[1].keys`.
        layer: the index of its layer, None where the name has none.
        tensor: the tensor.
    """

    name: str
    layer: int | None
    tensor: torch.Tensor


def held(cache: Any) -> list[Held]:
    """What `cache` holds: tuples of old versions, or any object with tensors in public attributes."""
    return list(_walk(cache, "", None, 0))


def _walk(value: Any, name: str, layer: int | None, depth: int) -> Iterator[Held]:
    import torch

    if isinstance(value, torch.Tensor):
        if value.is_floating_point() and value.numel():
            yield Held(name.lstrip("."), layer, value)
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
            # What is private is packed, or a buffer for prefetching.
            if not key.startswith("_"):
                yield from _walk(inner, f"{name}.{key}", layer, depth + 1)


def homes(model: nn.Module) -> dict[int, set[str]]:
    """Where the modules compute that keep a history, by the index of their layer: `layer_idx`, in transformers.

    Empty where no module has an index. More than one device for an index where an encoder counts its layers too.
    """
    found: dict[int, set[str]] = {}
    for module in model.modules():
        index = getattr(module, "layer_idx", None)
        if isinstance(index, int):
            found.setdefault(index, set()).add(with_index(_computes_on(module)))
    return found


def _computes_on(module: nn.Module) -> torch.device:
    """The device of the first hook in `module`, else of its first tensor that has one."""
    for inner in module.modules():
        if getattr(inner, "_hf_hook", None) is not None:
            return execution_device(inner)
    for tensor in module.parameters():
        if not tensor.is_meta:
            return tensor.device
    return execution_device(module)


@contextmanager
def caches_used(model: nn.Module) -> Iterator[list[Any]]:
    """The caches that the model returns or is given while the context lasts, each once, in order of appearance."""
    seen: list[Any] = []

    def note(cache: Any) -> None:
        if cache is not None and not any(cache is one for one in seen):
            seen.append(cache)

    def after(_: nn.Module, __: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        note(cache_of(kwargs))
        note(cache_of(output))

    # An adapter hands `generate` to the model inside it.
    inner = [one for one in model.modules() if hasattr(one, "prepare_inputs_for_generation")]
    handles = [
        one.register_forward_hook(after, with_kwargs=True) for one in {id(one): one for one in (model, *inner)}.values()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def is_offloaded(cache: Any) -> bool:
    """Whether the cache keeps layers in the memory of the machine on purpose, between their turns."""
    kinds = [cache, *(getattr(cache, name, None) for name in ("self_attention_cache", "cross_attention_cache"))]
    return any(bool(getattr(one, "offloading", False)) or "Offloaded" in type(one).__name__ for one in kinds)


STATE_SPACE: Final = "cache_params"
"""The argument of models whose cache is a state and has no row for each token."""


CACHE_ARGUMENTS: Final = ("past_key_values", STATE_SPACE, "state")


def cache_of(output: Any) -> Any:
    """The cache in what a forward pass or `generate` returned, None where there is none."""
    for name in CACHE_ARGUMENTS:
        cache = output.get(name) if isinstance(output, dict) else getattr(output, name, None)
        if cache is not None:
            return cache
    return None


def is_state_space(model: Any) -> bool:
    """Whether the model's cache is a state of one size, which takes the next tokens one at a time."""
    return STATE_SPACE in accepted(model)


def cache_argument(known: frozenset[str]) -> str:
    """The name under which a forward pass that accepts the arguments `known` takes its cache."""
    return next((name for name in CACHE_ARGUMENTS if name in known), CACHE_ARGUMENTS[0])


def layers_of(cache: Any) -> Iterator[tuple[int, str, torch.Tensor]]:
    """(layer, "keys" or "values", tensor) of what `cache` holds, whatever kind it is; nothing of an unknown kind."""
    import torch

    own = getattr(cache, "self_attention_cache", None)
    if own is not None:
        yield from layers_of(own)
        yield from layers_of(getattr(cache, "cross_attention_cache", None))
        return
    if isinstance(cache, (tuple, list)):
        for number, entry in enumerate(cache):
            if isinstance(entry, (tuple, list)):
                for kind, tensor in zip(("keys", "values"), entry, strict=False):
                    if isinstance(tensor, torch.Tensor):
                        yield number, kind, tensor
        return
    held = getattr(cache, "layers", None)
    for number, layer in enumerate(held if isinstance(held, Sequence) else ()):
        for kind in ("keys", "values"):
            tensor = getattr(layer, kind, None)
            if isinstance(tensor, torch.Tensor):
                yield number, kind, tensor


def length_of(cache: Any) -> int | None:
    """How many positions `cache` holds; 0 without one, None where there is no telling."""
    if cache is None:
        return 0
    try:
        if isinstance(cache, (tuple, list)):
            return int(cache[0][0].shape[-2]) if cache else 0
        return int(cache.get_seq_length())
    except Exception:  # noqa: BLE001  # a cache may be of anybody's class; one without positions has no length
        return None
