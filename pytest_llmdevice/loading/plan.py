"""The oracle: where every parameter and buffer of a loaded cell belongs, and in which dtype.

The plan does not trust the loader under test. Names, shapes, dtypes and ties come from a skeleton that
transformers builds from the checkpoint's configuration; devices come from the cell. Only for strategies in
which accelerate chooses does it read the map that accelerate left on the model, and it holds that map to what
the cell allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.loading.dtypes import intended_dtype
from pytest_llmdevice.loading.generation import execution_device
from pytest_llmdevice.loading.pretrained import skeleton, stored_equal
from pytest_llmdevice.loading.quantization import LAYER_CLASS, STORAGE_DTYPE
from pytest_llmdevice.matrix.cell import Cell

if TYPE_CHECKING:
    import torch
    from torch import nn

OFFLOADING: Final = frozenset({"cpu-offload", "disk-offload"})
AUTOMATIC: Final = frozenset({"auto", "balanced", "sequential"})


@dataclass(frozen=True, slots=True)
class Expected:
    """What one tensor must be.

    Attributes:
        name: as in `named_parameters` or `named_buffers` of the loaded model.
        role: `"parameter"` or `"buffer"`.
        devices: the devices it may be on, in PyTorch's spelling with an index; `"meta"` where it is
            offloaded and a hook brings it to its device.
        dtype: without the `torch.` in front.
        storage: `"dense"`, `"packed"` (bitsandbytes) or `"offloaded"`.
        why: the rule behind a dtype that is not simply the cell's.
    """

    name: str
    role: str
    devices: tuple[str, ...]
    dtype: str
    storage: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class LinearWeight:
    """One weight that quantization is about: of a linear layer, or of a stack of experts."""

    module: str
    parameter: str
    elements: int
    expert: bool
    quantized: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The expectations for one loaded cell.

    Attributes:
        tensors: one entry for each parameter and buffer that the architecture has.
        ties: groups of names that must share one tensor.
        untied: pairs (embedding, head) that must not share one.
        weights: linear and expert weights, and whether the cell wants them quantized.
        devices: every device that the cell may use.
    """

    tensors: tuple[Expected, ...]
    ties: tuple[tuple[str, ...], ...]
    untied: tuple[tuple[str, str], ...]
    weights: tuple[LinearWeight, ...]
    devices: tuple[str, ...]


def make_plan(model: nn.Module, checkpoint: str, cell: Cell) -> Plan:
    """The plan for `model`, which was loaded from `checkpoint` for `cell`."""
    bones = skeleton(checkpoint, cell)
    weights = _weights(bones, cell)
    packed = {weight.parameter for weight in weights if weight.quantized and not weight.expert}
    allowed = _allowed_devices(model, cell)
    tensors = [
        _expected(model, bones, name, "parameter", tensor.dtype, packed, allowed, cell)
        for name, tensor in bones.named_parameters(remove_duplicate=False)
    ] + [
        _expected(model, bones, name, "buffer", tensor.dtype, packed, allowed, cell)
        for name, tensor in bones.named_buffers(remove_duplicate=False)
    ]
    ties = _ties(bones, checkpoint)
    return Plan(tuple(tensors), ties, _untied(bones, ties), weights, allowed)


def _expected(
    model: nn.Module,
    bones: nn.Module,
    name: str,
    role: str,
    dtype: torch.dtype,
    packed: set[str],
    allowed: tuple[str, ...],
    cell: Cell,
) -> Expected:
    if name in packed:
        return Expected(
            name, role, allowed, STORAGE_DTYPE[cell.quantization], "packed", f"a weight in {cell.quantization}"
        )
    wanted = cell.torch_dtype
    # The skeleton was built in the cell's dtype: a tensor that is not in it is so on purpose (rotary
    # frequencies). Lists of what to keep in float32 apply only while weights are read.
    final = intended_dtype(bones, name, dtype, wanted, cell.quantization) if dtype == wanted else dtype
    why = ""
    if dtype.is_floating_point and final != wanted:
        why = "kept in float32 by the model class" if dtype == wanted else f"created in {_name(dtype)} on purpose"
    devices, storage = _devices(model, name, role, allowed, cell)
    return Expected(name, role, devices, _name(final), storage, why)


def _devices(
    model: nn.Module, name: str, role: str, allowed: tuple[str, ...], cell: Cell
) -> tuple[tuple[str, ...], str]:
    """Where a tensor may be, and its storage. An offloaded one is on meta; its hook brings it for each forward."""
    if cell.strategy in OFFLOADING and role == "parameter" and offload_hook(model, name) is not None:
        return ("meta",), "offloaded"
    mapped = _mapped(model, name)
    return ((mapped,) if mapped in allowed else allowed), "dense"


def _allowed_devices(model: nn.Module, cell: Cell) -> tuple[str, ...]:
    device = with_index(cell.torch_device)
    if cell.strategy == "split" or cell.strategy in AUTOMATIC:
        values = device_map(model).values()
        cards = tuple(dict.fromkeys(value for value in values if value.partition(":")[0] == cell.torch_device.type))
        return tuple(dict.fromkeys((device, *cards)))
    return (device,)


def device_map(model: nn.Module) -> Mapping[str, str]:
    """`hf_device_map` with every device in PyTorch's spelling; empty where there is none."""
    found: Mapping[str, Any] = getattr(model, "hf_device_map", None) or {}
    return {name: value if value == "disk" else with_index(_device(value)) for name, value in found.items()}


def _device(value: Any) -> torch.device:
    import torch

    if not isinstance(value, int):
        return torch.device(value)
    # A bare number is a card's; `torch.device(0)` itself raises where torch finds no card.
    accelerator = torch.accelerator.current_accelerator()
    return torch.device(accelerator.type if accelerator is not None else "cuda", value)


def _mapped(model: nn.Module, name: str) -> str | None:
    entries = device_map(model)
    fitting = [entry for entry in entries if not entry or name == entry or name.startswith(f"{entry}.")]
    return entries[max(fitting, key=len)] if fitting else None


def offload_hook(model: nn.Module, name: str) -> Any:
    """The accelerate hook that brings the offloaded tensor `name` to its device, or None."""
    path, _, _ = name.rpartition(".")
    try:
        owner = model.get_submodule(path)
    except AttributeError:
        return None
    hook = getattr(owner, "_hf_hook", None)
    for inner in getattr(hook, "hooks", (hook,)):
        if getattr(inner, "offload", False):
            return inner
    return None


def with_index(device: torch.device) -> str:
    """`device` as a string with the index that PyTorch would use: `cuda` is `cuda:0` for a tensor."""
    if device.type in {"cuda", "xpu"}:
        return f"{device.type}:{device.index or 0}"
    return device.type


def _ties(bones: nn.Module, checkpoint: str) -> tuple[tuple[str, ...], ...]:
    groups: dict[int, list[str]] = {}
    for name, parameter in bones.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1 and stored_equal(checkpoint, names))


def _untied(bones: Any, ties: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, str], ...]:
    names = {id(module): name for name, module in bones.named_modules()}
    embedding, head = bones.get_input_embeddings(), bones.get_output_embeddings()
    if embedding is None or head is None:
        return ()
    pair = (f"{names[id(embedding)]}.weight", f"{names[id(head)]}.weight")
    # Tied by the configuration and stored as two: either is right, and neither is asked for.
    undecided = embedding.weight is head.weight
    return () if undecided or any(set(pair) <= set(group) for group in ties) else (pair,)


def _weights(bones: Any, cell: Cell) -> tuple[LinearWeight, ...]:
    """Linear weights and stacks of expert weights.

    Not quantized are the head (and what is tied to it) and what the class keeps in float32.
    Source: `get_modules_to_not_convert` of transformers' base quantizer.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    quantize = cell.quantization in LAYER_CLASS
    head = bones.get_output_embeddings()
    kept = set(getattr(bones, "_keep_in_fp32_modules", None) or ())
    found = []
    for name, module in bones.named_modules():
        if isinstance(module, (nn.Linear, Conv1D)):
            excluded = module is head or bool(kept & set(name.split(".")))
            found.append(
                LinearWeight(
                    name, f"{name}.weight", module.weight.numel(), expert=False, quantized=quantize and not excluded
                )
            )
        elif not isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            found += [
                LinearWeight(name, f"{name}.{key}", parameter.numel(), expert=True, quantized=quantize)
                for key, parameter in module.named_parameters(recurse=False)
                if parameter.ndim == 3 and "expert" in f"{type(module).__name__} {name}".lower()
            ]
    return tuple(found)


def execution_devices(model: nn.Module) -> tuple[str, str]:
    """Where the input embedding and the head compute, as (embedding, head)."""
    embedding = execution_device(model.get_input_embeddings())  # type: ignore[operator]
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return with_index(embedding), with_index(execution_device(head) if head is not None else embedding)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
