"""Reads what accelerate left on a loaded model: its device map, and the hooks that move tensors."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.matrix.axes import Strategy
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.model.wrappers import core_with_path, input_embedding

if TYPE_CHECKING:
    import torch
    from torch import nn


def with_index(device: torch.device) -> str:
    """`device` as a string, with the index that PyTorch gives tensors: `cuda:0` for `cuda`."""
    if device.type in {"cuda", "xpu"}:
        return f"{device.type}:{device.index or 0}"
    return device.type


class DeviceMap:
    """The `hf_device_map` of a model or of the model in a wrapper, with every device in PyTorch's spelling.

    Attributes:
        prefix: the name of the module that has the map, empty if it is the model itself.
        entries: module name -> device or `"disk"`; empty without a map.
    """

    def __init__(self, model: nn.Module) -> None:
        self.prefix, self.entries = "", dict[str, str]()
        path, _ = core_with_path(model)
        parts = path.split(".") if path else []
        for end in range(len(parts) + 1):
            prefix = ".".join(parts[:end])
            # Not `getattr`: PEFT's wrappers forward the map of the model in them, whose names do not fit the wrapper.
            entries: Mapping[str, Any] | None = vars(model.get_submodule(prefix)).get("hf_device_map")
            if entries:
                self.prefix = prefix
                self.entries = {key: _spelled(value) for key, value in entries.items()}
                return
        # A class that takes a model apart may keep the whole one as a plain attribute, and with it the map.
        kept = (value for value in vars(model).values() if hasattr(type(value), "forward"))
        for whole in kept:
            if entries := vars(whole).get("hf_device_map"):
                self.entries = {key: _spelled(value) for key, value in entries.items()}
                return

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices of the map, each once, in its order."""
        return tuple(dict.fromkeys(self.entries.values()))

    def device_of(self, name: str, architecture: str) -> str | None:
        """The device that the map has for a tensor, or None.

        Args:
            name: the tensor's name in the model.
            architecture: its name in the architecture.
        """
        inner_name = name.removeprefix(f"{self.prefix}.") if self.prefix else name
        fitting = [
            entry
            for entry in self.entries
            for tensor_name in (inner_name, architecture)
            if not entry or tensor_name == entry or tensor_name.startswith(f"{entry}.")
        ]
        return self.entries[max(fitting, key=len)] if fitting else None


def device_map(model: nn.Module) -> Mapping[str, str]:
    """The `hf_device_map` of a model, with every device in PyTorch's spelling; empty without one."""
    return DeviceMap(model).entries


def allowed_devices(model: nn.Module, entries: DeviceMap, cell: Cell) -> tuple[str, ...]:
    """The devices that `cell` may use: its own, and for a model that is split over cards those of its map.

    accelerate leaves no map on a model that it put on one card, and `auto` may choose another card than the cell's.
    The allowed device is then the one with the most parameters.
    """
    device = with_index(cell.torch_device)
    strategy = current().of(Strategy)[cell.strategy]
    if strategy.cards < 2 and not strategy.automatic:
        return (device,)
    kind = cell.torch_device.type
    if entries.entries:
        cards = [place for place in entries.devices if place.partition(":")[0] == kind]
        return tuple(dict.fromkeys((device, *cards)))
    places = Counter(with_index(parameter.device) for parameter in model.parameters())
    chosen = max(places, key=lambda place: (places[place], place == device), default=device)
    chose = strategy.automatic and device not in places and chosen.partition(":")[0] == kind
    return (chosen,) if chose else (device,)


def hooks_of(module: nn.Module) -> Iterator[Any]:
    """The accelerate hooks of `module` itself."""
    hook = getattr(module, "_hf_hook", None)
    for inner in getattr(hook, "hooks", (hook,)):
        if inner is not None:
            yield inner


def offload_hook(model: nn.Module, name: str) -> Any:
    """The accelerate hook that moves the offloaded tensor `name` to its execution device, or None."""
    path, _, _ = name.rpartition(".")
    try:
        owner = model.get_submodule(path)
    except AttributeError:
        return None
    return next((hook for hook in hooks_of(owner) if getattr(hook, "offload", False)), None)


def restore_offloading(model: nn.Module) -> None:
    """Offload the tensors again that hooks moved to a device for a forward pass that raised.

    accelerate does so only after a pass that returned; after an exception the tensors would stay on the device.
    """
    for module in model.modules():
        loaded = any(not parameter.is_meta for parameter in module.parameters(recurse=False))
        for hook in hooks_of(module) if loaded else ():
            if getattr(hook, "offload", False):
                hook.post_forward(module, None)


def _spelled(value: Any) -> str:
    return value if value == "disk" else with_index(as_torch_device(value))


def execution_device(module: nn.Module) -> torch.device:
    """The device on which `module` computes: its hook's `execution_device`, else the device of its first tensor.

    The parameters of an offloaded module are on `meta`; accelerate's hook has the device that they are moved to. The
    CPU for a module without tensors.
    """
    import torch

    first = next(itertools.chain(module.parameters(), module.buffers()), None)
    # `accelerate.cpu_offload` gives hooks only to submodules that have parameters of their own.
    for part in module.modules() if first is not None and first.is_meta else (module,):
        hook = getattr(part, "_hf_hook", None)
        for inner in getattr(hook, "hooks", (hook,)):
            device = getattr(inner, "execution_device", None)
            if device is not None:
                return as_torch_device(device)
    return torch.device("cpu") if first is None else first.device


def as_torch_device(value: Any) -> torch.device:
    """The device that accelerate names by `value`; a number is the index of a card."""
    import torch

    if not isinstance(value, int):
        return torch.device(value)
    # `torch.device(0)` raises if torch finds no card.
    accelerator = torch.accelerator.current_accelerator()
    return torch.device(accelerator.type if accelerator is not None else "cuda", value)


def embedding_device(model: Any) -> torch.device:
    """The device on which the input embedding computes, where the model's inputs belong.

    It may differ from the first parameter's device (transformers#16935).

    Raises:
        AttributeError: neither the model nor a module in it has `get_input_embeddings`.
    """
    embedding = input_embedding(model)
    if embedding is None:
        name = type(model).__name__
        raise AttributeError(f"{name} has no get_input_embeddings, which says where its inputs belong")
    return execution_device(embedding)
