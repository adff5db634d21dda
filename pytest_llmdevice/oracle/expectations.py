"""Computes where every parameter and buffer of a loaded cell belongs, and in which dtype.

The loader under test is not trusted. Names, shapes, dtypes and ties come from a skeleton that transformers builds from
the checkpoint's configuration; devices come from the cell. Only for strategies in which accelerate chooses, the map
that accelerate left on the model is read, and is compared with what the cell allows. What a target put around the model
(PEFT, a compiled module, a class of its own) only makes names longer: expectations have the names of the loaded model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.loading.pretrained import stored_equal
from pytest_llmdevice.loading.stored_packed import stored_packed
from pytest_llmdevice.matrix.axes import Quantization, Strategy, fits
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.matrix.vocabulary import dtype_name
from pytest_llmdevice.model.device_map import DeviceMap, allowed_devices, execution_device, offload_hook, with_index
from pytest_llmdevice.model.dtypes import intended_dtype
from pytest_llmdevice.model.names import NamedTensor, TensorNames
from pytest_llmdevice.model.packing import packing
from pytest_llmdevice.model.wrappers import core, input_embedding, is_of_transformers
from pytest_llmdevice.oracle.linear_weights import LinearWeight, left_dense, linear_weights
from pytest_llmdevice.oracle.plain_load import plain_skeleton
from pytest_llmdevice.oracle.recognition import names_of

if TYPE_CHECKING:
    import torch
    from torch import nn

KEPT: Final = "kept in float32 by the model class"


def offloads(cell: Cell) -> str:
    """Where the strategy of `cell` keeps a part of the weights: `"memory"`, `"disk"`, or empty for nowhere."""
    return current().of(Strategy)[cell.strategy].offload


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
        architecture: its name in the architecture, shorter than `name` in a model that is wrapped.
        shape: of the dense tensor.
        other: whether the loaded model has it as a part of another tensor, or in another form: transposed.
        away: whether it is not there under its name, and its module holds it packed under other names.
        computed: a buffer that no checkpoint holds: the class computes it, in the dtype that is the default then.
    """

    name: str
    role: str
    devices: tuple[str, ...]
    dtype: str
    storage: str
    why: str = ""
    architecture: str = ""
    shape: tuple[int, ...] = ()
    computed: bool = False
    other: bool = False
    away: bool = False


@dataclass(frozen=True, slots=True)
class Extra:
    """A tensor that the architecture does not have: an adapter's, or one of the target's own.

    Attributes:
        name: in the loaded model.
        devices: where it may be: beside what it belongs to.
        beside: the tensor of the architecture that it works with, empty where there is none.
    """

    name: str
    devices: tuple[str, ...]
    beside: str = ""


@dataclass(frozen=True, slots=True)
class Expectations:
    """The expectations for one loaded cell.

    Attributes:
        tensors: one entry for each parameter and buffer that the architecture has.
        ties: groups of names that must share one tensor.
        untied: pairs (embedding, head) that must not share one.
        weights: linear and expert weights, and whether the cell wants them quantized.
        devices: every device that the cell may use.
        extras: what the loaded model has beyond the architecture.
        attributes: names, as `module.attribute`, under which modules of the architecture themselves keep tensors
            that are neither parameters nor buffers.
        architecture: the name of the class that transformers has for the checkpoint.
        unknown: the patterns of modules to be left dense, or to have a quantization of their own, that fit none.
        stored: the linear modules that the checkpoint itself holds packed.
    """

    tensors: tuple[Expected, ...]
    ties: tuple[tuple[str, ...], ...]
    untied: tuple[tuple[str, str], ...]
    weights: tuple[LinearWeight, ...]
    devices: tuple[str, ...]
    extras: tuple[Extra, ...] = ()
    attributes: frozenset[str] = frozenset()
    architecture: str = ""
    unknown: tuple[str, ...] = ()
    stored: frozenset[str] = frozenset()


def expectations_of(model: nn.Module, checkpoint: str, cell: Cell, dense: Sequence[str] = ()) -> Expectations:
    """What is expected of `model`, which was loaded from `checkpoint` for `cell`.

    Args:
        model: the model.
        checkpoint: the local folder that it was loaded from.
        cell: what was asked for.
        dense: patterns of the modules that are left unquantized on purpose, by their name in the architecture.
    """
    bones = plain_skeleton(checkpoint, cell)
    names = names_of(model, checkpoint, bones)
    entries = DeviceMap(model)
    allowed = allowed_devices(model, entries, cell)
    weights = tuple(left_dense(weight, dense) for weight in linear_weights(bones, cell))
    like = is_of_transformers(model)
    packed = {weight.parameter: weight.quantization for weight in weights if weight.quantized and not weight.expert}
    tensors = tuple(
        replace(
            _expected(
                _Place(model, entries, allowed), bones, names.loaded_name(name), name, role, tensor, packed, cell
            ),
            other=names.is_other(name),
            away=not names.has(name) and _is_away(model, names.loaded_name(name), tensor),
        )
        for role, held in (
            ("parameter", bones.named_parameters(remove_duplicate=False)),
            ("buffer", bones.named_buffers(remove_duplicate=False)),
        )
        for name, tensor in held
        # A class of one's own may compute otherwise what no checkpoint holds.
        if like or role == "parameter" or not _computed(bones, name) or names.has(name)
    )
    ties = _ties(bones, checkpoint)
    return Expectations(
        tensors,
        tuple(tuple(map(names.loaded_name, group)) for group in ties),
        tuple((names.loaded_name(tensor), names.loaded_name(other)) for tensor, other in _untied(bones, ties)),
        tuple(_loaded(weight, names) for weight in weights),
        allowed,
        tuple(_extras(names, tensors, allowed)),
        frozenset(_join(name, key) for name, module in bones.named_modules() for key in tensor_attributes(module)),
        type(bones).__name__,
        _unknown(bones, weights, dense, cell),
        frozenset(
            names.module_name(module) or names.loaded_name(module)
            for module in stored_packed(checkpoint, [weight.module for weight in weights])
        ),
    )


def _unknown(bones: nn.Module, weights: Sequence[LinearWeight], dense: Sequence[str], cell: Cell) -> tuple[str, ...]:
    from torch import nn

    known = [weight.module for weight in weights]
    known += [name for name, module in bones.named_modules() if isinstance(module, nn.Embedding)]
    named = [pattern for pattern, _ in current().of(Quantization)[cell.quantization].modules]
    return tuple(pattern for pattern in (*dense, *named) if not any(fits(pattern, module) for module in known))


_Where = tuple[tuple[str, ...], str]
"""The devices on which a tensor may be, and its storage."""


@dataclass(frozen=True, slots=True)
class _Place:
    """What decides where a tensor belongs."""

    model: nn.Module
    entries: DeviceMap
    allowed: tuple[str, ...]

    def of(self, name: str, architecture: str, role: str, tensor: torch.Tensor, cell: Cell) -> _Where:
        """Where a tensor may be, and its storage. An offloaded one is on meta; its hook brings it for each forward."""
        if offloads(cell) and role == "parameter" and offload_hook(self.model, name) is not None:
            return ("meta",), "offloaded"
        mapped = self.entries.device_of(name, architecture)
        if mapped in self.allowed:
            return (mapped,), "dense"
        # A map that takes a module apart names none of its buffers, which stay on the cpu (expand_device_map of
        # transformers). PyTorch takes a number of the cpu beside tensors of any device, and nothing larger.
        left = role == "buffer" and tensor.ndim == 0 and self.entries.entries and mapped is None
        return tuple(dict.fromkeys((*self.allowed, "cpu"))) if left else self.allowed, "dense"


def _expected(
    place: _Place,
    bones: nn.Module,
    name: str,
    architecture: str,
    role: str,
    tensor: torch.Tensor,
    packed: Mapping[str, str],
    cell: Cell,
) -> Expected:
    shape, dtype, wanted = tuple(tensor.shape), tensor.dtype, cell.torch_dtype
    devices, storage = place.of(name, architecture, role, tensor, cell)
    if architecture in packed:
        entry = current().of(Quantization)[packed[architecture]]
        why = f"a weight in {entry.name}"
        return Expected(name, role, devices, entry.storage_dtype, "packed", why, architecture, shape)
    # The skeleton was built in the cell's dtype: a tensor that is not in it is so on purpose (rotary
    # frequencies). Lists of what to keep in float32 apply only while weights are read.
    final = intended_dtype(bones, architecture, dtype, wanted, cell.quantization) if dtype == wanted else dtype
    why = ""
    if dtype.is_floating_point and final != wanted:
        why = KEPT if dtype == wanted else f"created in {dtype_name(dtype)} on purpose"
    computed = role == "buffer" and _computed(bones, architecture)
    return Expected(name, role, devices, dtype_name(final), storage, why, architecture, shape, computed)


def _is_away(model: nn.Module, name: str, tensor: torch.Tensor) -> bool:
    """Whether the module of the missing weight `name` holds it packed under other names, as layers of one's own do."""
    path, _, key = name.rpartition(".")
    try:
        module = model.get_submodule(path)
    except AttributeError:
        return False
    return tensor.ndim > 1 and packing(module, key, tensor.numel()) is not None


def _computed(bones: nn.Module, name: str) -> bool:
    path, _, key = name.rpartition(".")
    return key in getattr(bones.get_submodule(path), "_non_persistent_buffers_set", ())


def _loaded(weight: LinearWeight, names: TensorNames) -> LinearWeight:
    module = names.module_name(weight.module) or names.loaded_name(weight.module)
    return replace(weight, module=module, parameter=names.loaded_name(weight.parameter))


def _extras(names: TensorNames, tensors: tuple[Expected, ...], allowed: tuple[str, ...]) -> Iterator[Extra]:
    """What the architecture does not have. An adapter belongs where the nearest tensors of the architecture are."""
    known = {expected.name for expected in tensors}
    for named in names.tensors:
        if named.architecture is None and named.name not in known:
            beside = _beside(named, names, tensors)
            places = tuple(dict.fromkeys(place for tensor in beside for place in tensor.devices))
            yield Extra(named.name, places or allowed, beside[0].name if beside else "")


def _beside(named: NamedTensor, names: TensorNames, tensors: tuple[Expected, ...]) -> list[Expected]:
    path = named.name
    while path:
        path = path.rpartition(".")[0]
        architecture = names.modules.get(path)
        found = [tensor for tensor in tensors if architecture and tensor.architecture.startswith(f"{architecture}.")]
        if found:
            return [tensor for tensor in found if tensor.architecture.rpartition(".")[0] == architecture] or found
    return []


def tensor_attributes(module: nn.Module) -> dict[str, torch.Tensor]:
    """Tensors that `module` keeps as plain attributes, neither parameters nor buffers, one level deep."""
    import torch

    found: dict[str, torch.Tensor] = {}
    for key, value in vars(module).items():
        if key in {"_parameters", "_buffers", "_modules"}:
            continue
        inner = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
        )
        if isinstance(value, torch.Tensor):
            found[key] = value
        found |= {f"{key}[{number!r}]": tensor for number, tensor in inner if isinstance(tensor, torch.Tensor)}
    return found


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


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


def execution_devices(model: nn.Module) -> tuple[str, str]:
    """Where the input embedding and the head compute, as (embedding, head)."""
    inner: Any = core(model)
    embedding = execution_device(input_embedding(model))
    head = getattr(inner, "get_output_embeddings", lambda: None)()
    return with_index(embedding), with_index(execution_device(head) if head is not None else embedding)
