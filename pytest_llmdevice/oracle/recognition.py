"""Recognizes the tensors of a checkpoint in a model that has other names for them: by value, structure and shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.model.doors import plain_values
from pytest_llmdevice.model.names import Known, NamedTensor, Part, TensorNames
from pytest_llmdevice.model.own import own_of
from pytest_llmdevice.model.templates import declared, learned, template
from pytest_llmdevice.model.weights import dequantized, is_packed, offloaded_value
from pytest_llmdevice.oracle.plain_load import plain_model

if TYPE_CHECKING:
    import torch
    from torch import nn

ALIKE: Final = 0.3
"""The largest ||value - expected|| / ||expected|| of tensors that are taken for one another where none is equal:
rounded, packed into 4 bits (0.12) or slightly wrong. Of unrelated weights it is 1.4."""

FEWEST: Final = 2
"""Elements. One number may be equal by chance."""


def names_of(model: nn.Module, checkpoint: str, plain: nn.Module) -> TensorNames:
    """The names of `model`'s tensors in it and in `checkpoint`, whatever the model calls them.

    Args:
        model: a model that was loaded from `checkpoint`.
        checkpoint: the local folder.
        plain: a model of its architecture, with or without data.
    """
    own = own_of(model)
    names = TensorNames(model, plain, own.known if own is not None else {})
    lacking = _lacking(names, plain)
    if not lacking:
        return names
    known = dict(_declared(names, plain, lacking, own.names if own is not None else {}))
    lacking -= {part.architecture for parts in known.values() for part in parts}
    known |= recognized(model, names, checkpoint, lacking, known)
    if not known:
        return names
    if own is not None:
        own.known |= known
        known = own.known
    return TensorNames(model, plain, known)


def _lacking(names: TensorNames, plain: nn.Module) -> set[str]:
    """The parameters of the architecture that no tensor is known to be."""
    there = {named.architecture for named in names.tensors}
    return {name for name, _ in plain.named_parameters(remove_duplicate=False)} - there


def _declared(
    names: TensorNames, plain: nn.Module, lacking: set[str], patterns: Mapping[str, str]
) -> Iterator[tuple[str, tuple[Part, ...]]]:
    for named in _unknown(names):
        theirs = declared(named.name, patterns)
        if theirs is not None and theirs in lacking:
            shape = tuple(plain.get_parameter(theirs).shape)
            turned = shape != tuple(named.tensor.shape) == shape[::-1]
            yield named.name, (Part(theirs, transposed=turned),)


def _unknown(names: TensorNames) -> Iterator[NamedTensor]:
    yield from (named for named in names.tensors if named.architecture is None)


def recognized(
    model: nn.Module, names: TensorNames, checkpoint: str, lacking: set[str], known: Known
) -> dict[str, tuple[Part, ...]]:
    """What tensors of `model` that nobody has named are in the architecture.

    First come tensors with the values of one of the checkpoint's, rounded to their dtype, transposed or not, or with
    those of several, one below the other; then those that the names of the first say (`h.*.query` is
    `model.layers.*.self_attn.q_proj`); then those with about the values; at last those that are the only ones of a
    shape. What is equal to several, such as norms that are all ones, is told by the names.

    Args:
        model: the model.
        names: what its tensors are called.
        checkpoint: the local folder of the checkpoint.
        lacking: the names in the architecture that are looked for.
        known: what the target has named.
    """
    try:
        original = plain_model(checkpoint)
    except Exception:  # noqa: BLE001  # of a checkpoint that does not load, the check of its values says more
        return {}
    plain = {
        name: tensor.detach() for name, tensor in original.named_parameters(remove_duplicate=False) if name in lacking
    }
    left = {named.name: named for named in _unknown(names) if named.name not in known}
    values = {name: value for name, named in left.items() if (value := _value(model, named)) is not None}
    found: dict[str, tuple[Part, ...]] = {}

    def take(pairs: Iterable[tuple[str, tuple[Part, ...]]]) -> None:
        for mine, parts in pairs:
            if mine in values and all(part.architecture in plain for part in parts):
                found[mine] = parts
                del values[mine]
                for part in parts:
                    del plain[part.architecture]

    take(list(_equal(values, plain)))
    take(list(_joined(values, plain)))
    for by in (_alike, _only):
        take(list(_by_names(values, plain, {**known, **found})))
        take(list(by(values, plain)))
    take(list(_by_names(values, plain, {**known, **found})))
    return found


Values = Mapping[str, "torch.Tensor"]
Pairs = Iterator["tuple[str, tuple[Part, ...]]"]


def _value(model: nn.Module, named: NamedTensor) -> torch.Tensor | None:
    """The dense value of a tensor on the CPU; None where it has none, and of buffers that are no weights."""
    if named.tensor.is_meta:
        value = offloaded_value(model, named.name)
    elif is_packed(named.tensor):
        value = dequantized(model.get_submodule(named.name.rpartition(".")[0]), named.tensor)
    else:
        value = plain_values(named.tensor)
    return value.cpu() if value is not None and value.is_floating_point() else None


def _constant(tensor: torch.Tensor) -> bool:
    """Whether it is one number everywhere, which its place tells, and not its value."""
    return tensor.numel() < FEWEST or bool((tensor == tensor.flatten()[0]).all())


def _equal(values: Values, plain: Values) -> Pairs:
    """Pairs with the same values; of several with the same ones, as tied weights have, in their order."""
    groups: dict[object, tuple[list[str], list[Part]]] = {}
    dtypes = {value.dtype for value in values.values()}
    for name, value in values.items():
        if not _constant(value):
            groups.setdefault(_print(value), ([], []))[0].append(name)
    for name, tensor in plain.items():
        for transposed in (False, True) if tensor.ndim == 2 else (False,):
            part = Part(name, transposed=transposed)
            for key in {_print(part.of(tensor).to(dtype)) for dtype in dtypes}:
                if key in groups:
                    groups[key][1].append(part)
    for mine, theirs in groups.values():
        yield from ((name, (part,)) for name, part in zip(mine, theirs, strict=False))


def _print(tensor: torch.Tensor) -> tuple[object, ...]:
    import torch

    bits = tensor.contiguous().flatten().view(torch.uint8)
    return tensor.dtype, tuple(tensor.shape), hash(bits.numpy().tobytes())


def _joined(values: Values, plain: Values) -> Pairs:
    """Tensors whose rows are those of several of the checkpoint's, one below the other: query, key and value."""
    for name, value in values.items():
        parts: list[Part] = []
        row = 0
        while value.ndim and row < len(value):
            taken = {part.architecture for part in parts}
            theirs = next(
                (
                    other
                    for other, tensor in plain.items()
                    if other not in taken
                    and tensor.ndim == value.ndim
                    and tensor.shape[1:] == value.shape[1:]
                    and len(tensor) <= len(value) - row
                    and not _constant(tensor)
                    and bool((value[row : row + len(tensor)] == tensor.to(value.dtype)).all())
                ),
                None,
            )
            if theirs is None:
                break
            parts.append(Part(theirs, (row, row + len(plain[theirs]))))
            row += len(plain[theirs])
        if len(parts) > 1 and row == len(value):
            yield name, tuple(parts)


def _alike(values: Values, plain: Values) -> Pairs:
    """Pairs with about the same values, each the only one for the other."""
    fitting: dict[str, list[Part]] = {}
    for name, value in values.items():
        for theirs, tensor in plain.items():
            size = float(tensor.norm())
            if not size or _constant(tensor):
                continue
            for transposed in (False, True) if tensor.ndim == 2 else (False,):
                form = Part(theirs, transposed=transposed).of(tensor)
                if value.shape == form.shape and float((value.float() - form).norm()) <= ALIKE * size:
                    fitting.setdefault(name, []).append(Part(theirs, transposed=transposed))
    for name, parts in fitting.items():
        if len(parts) == 1 and sum(parts[0] in each for each in fitting.values()) == 1:
            yield name, (parts[0],)


def _by_names(values: Values, plain: Values, pairs: Known) -> Pairs:
    whole = {mine: parts[0] for mine, parts in pairs.items() if len(parts) == 1}
    patterns = learned({mine: part.architecture for mine, part in whole.items()})
    turned = {template(part.architecture)[0] for part in whole.values() if part.transposed}
    for name, value in values.items():
        theirs = declared(name, patterns)
        if theirs is None or theirs not in plain:
            continue
        part = Part(theirs, transposed=plain[theirs].ndim == 2 and template(theirs)[0] in turned)
        if value.shape == part.of(plain[theirs]).shape:
            yield name, (part,)


def _only(values: Values, plain: Values) -> Pairs:
    """Pairs of one shape, where all tensors of that shape are of one pattern of names on both sides."""
    theirs = _by_shape(plain)
    for anywhere in (False, True):
        for shape, names in _by_shape(values, anywhere=anywhere).items():
            others = theirs.get(shape, {})
            if len(names) == len(others) == 1:
                (own,), (its,) = names.values(), others.values()
                if set(own) == set(its):
                    yield from ((own[numbers], (Part(its[numbers]),)) for numbers in own)


def _by_shape(
    tensors: Mapping[str, torch.Tensor], *, anywhere: bool = False
) -> dict[tuple[int, ...], dict[str, dict[tuple[str, ...], str]]]:
    """Shape -> pattern of names -> numbers in the name -> name."""
    found: dict[tuple[int, ...], dict[str, dict[tuple[str, ...], str]]] = {}
    for name, tensor in tensors.items():
        pattern, numbers = template(name, anywhere=anywhere)
        found.setdefault(tuple(tensor.shape), {}).setdefault(pattern, {})[numbers] = name
    return found
