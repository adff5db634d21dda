"""What accelerate left on a loaded model: its device map, and the hooks that bring tensors to where they compute."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.matrix.axes import Strategy
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.model.names import core_with_path, input_embedding

if TYPE_CHECKING:
    import torch
    from torch import nn


def with_index(device: torch.device) -> str:
    """`device` as a string with the index that PyTorch would use: `cuda` is `cuda:0` for a tensor."""
    if device.type in {"cuda", "xpu"}:
        return f"{device.type}:{device.index or 0}"
    return device.type


class DeviceMap:
    """The `hf_device_map` of a model, which may be in a wrapper, every device in PyTorch's spelling.

    Attributes:
        prefix: the name of the module that has the map, empty when it is the model itself.
        entries: the map as it is; empty where there is none.
    """

    def __init__(self, model: nn.Module) -> None:
        self.prefix, self.entries = "", dict[str, str]()
        path, _ = core_with_path(model)
        parts = path.split(".") if path else []
        for end in range(len(parts) + 1):
            prefix = ".".join(parts[:end])
            # A wrapper that hands attributes on (PEFT's) shows the map of what is in it, with names that are not its.
            found: Mapping[str, Any] | None = vars(model.get_submodule(prefix)).get("hf_device_map")
            if found:
                self.prefix = prefix
                self.entries = {key: _spelled(value) for key, value in found.items()}
                return

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices of the map, in its order."""
        return tuple(dict.fromkeys(self.entries.values()))

    def place(self, name: str, architecture: str) -> str | None:
        """Where the map has the tensor `name` of the model, called `architecture` in its core; None for nowhere."""
        inside = name.removeprefix(f"{self.prefix}.") if self.prefix else name
        fitting = [
            entry
            for entry in self.entries
            for one in (inside, architecture)
            if not entry or one == entry or one.startswith(f"{entry}.")
        ]
        return self.entries[max(fitting, key=len)] if fitting else None


def device_map(model: nn.Module) -> Mapping[str, str]:
    """`hf_device_map` with every device in PyTorch's spelling; empty where there is none."""
    return DeviceMap(model).entries


def allowed_devices(model: nn.Module, entries: DeviceMap, cell: Cell) -> tuple[str, ...]:
    """Every device that `cell` may use: its own, and for a model that is spread the cards of its map.

    A map that came out as one card leaves no trace on the model, and `auto` may choose another card than the cell's:
    then it is the one that has the most parameters.
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
    """The accelerate hook that brings the offloaded tensor `name` to its device, or None."""
    path, _, _ = name.rpartition(".")
    try:
        owner = model.get_submodule(path)
    except AttributeError:
        return None
    return next((hook for hook in hooks_of(owner) if getattr(hook, "offload", False)), None)


def put_back(model: nn.Module) -> None:
    """Have hooks take away what they brought for a forward pass that an exception ended.

    accelerate does so after a pass that came to its end; otherwise the tensors stay where they computed, and the model
    is no longer as it was loaded.
    """
    for module in model.modules():
        brought = any(not parameter.is_meta for parameter in module.parameters(recurse=False))
        for hook in hooks_of(module) if brought else ():
            if getattr(hook, "offload", False):
                hook.post_forward(module, None)


def _spelled(value: Any) -> str:
    return value if value == "disk" else with_index(device_named(value))


def execution_device(module: nn.Module) -> torch.device:
    """Where `module` computes: its hook's `execution_device` when it is dispatched, else its first tensor's.

    An offloaded module's parameters are on `meta`; accelerate's hook knows where they are brought.
    """
    import torch

    first = next(itertools.chain(module.parameters(), module.buffers()), None)
    # `accelerate.cpu_offload` gives hooks to the parts that have parameters of their own, and to no other.
    for part in module.modules() if first is not None and first.is_meta else (module,):
        hook = getattr(part, "_hf_hook", None)
        for inner in getattr(hook, "hooks", (hook,)):
            device = getattr(inner, "execution_device", None)
            if device is not None:
                return device_named(device)
    return torch.device("cpu") if first is None else first.device


def device_named(value: Any) -> torch.device:
    """What accelerate calls a device: a bare number is a card's."""
    import torch

    if not isinstance(value, int):
        return torch.device(value)
    # `torch.device(0)` itself raises where torch finds no card.
    accelerator = torch.accelerator.current_accelerator()
    return torch.device(accelerator.type if accelerator is not None else "cuda", value)


def embedding_device(model: Any) -> torch.device:
    """Where the input embedding computes: the device on which inputs belong.

    Not the first parameter's device, which is the embedding's only by luck (transformers#16935).

    Raises:
        AttributeError: neither the model nor anything in it has a `get_input_embeddings`.
    """
    embedding = input_embedding(model)
    if embedding is None:
        name = type(model).__name__
        raise AttributeError(f"{name} has no get_input_embeddings, which says where its inputs belong")
    return execution_device(embedding)
