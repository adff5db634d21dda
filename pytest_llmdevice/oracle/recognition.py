"""Recognizes the tensors of a checkpoint in a model that has other names for them: by value, structure and shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.model.names import NamedTensor, TensorNames
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
    known = dict(_declared(names, lacking, own.names if own is not None else {}))
    known |= recognized(model, names, checkpoint, lacking - set(known.values()), known)
    if not known:
        return names
    if own is not None:
        own.known |= known
    return TensorNames(model, plain, known)


def _lacking(names: TensorNames, plain: nn.Module) -> set[str]:
    """The parameters of the architecture that no tensor is known to be."""
    there = {named.architecture for named in names.tensors}
    return {name for name, _ in plain.named_parameters(remove_duplicate=False)} - there


def _declared(names: TensorNames, lacking: set[str], patterns: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for named in _unknown(names):
        theirs = declared(named.name, patterns)
        if theirs is not None and theirs in lacking:
            yield named.name, theirs


def _unknown(names: TensorNames) -> Iterator[NamedTensor]:
    yield from (named for named in names.tensors if named.architecture is None)


def recognized(
    model: nn.Module, names: TensorNames, checkpoint: str, lacking: set[str], known: Mapping[str, str]
) -> dict[str, str]:
    """Names of tensors of `model` -> names in the architecture, of those that nobody has named.

    First come tensors with the values of one of the checkpoint's, rounded to their dtype; then those that the names of
    the first say (`h.*.query` is `model.layers.*.self_attn.q_proj`); then those with about the values; at last those
    that are the only ones of a shape. What is equal to several, such as norms that are all ones, is told by the names.

    Args:
        model: the model.
        names: what its tensors are called.
        checkpoint: the local folder of the checkpoint.
        lacking: the names in the architecture that are looked for.
        known: what the target has named.
    """
    plain = {
        name: tensor.detach()
        for name, tensor in plain_model(checkpoint).named_parameters(remove_duplicate=False)
        if name in lacking
    }
    left = {named.name: named for named in _unknown(names) if named.name not in known}
    values = {name: value for name, named in left.items() if (value := _value(model, named)) is not None}
    found: dict[str, str] = {}

    def take(pairs: Iterable[tuple[str, str]]) -> None:
        for mine, theirs in pairs:
            if mine in values and theirs in plain:
                found[mine] = theirs
                del values[mine], plain[theirs]

    take(list(_equal(values, plain)))
    for by in (_alike, _only):
        take(list(_by_names(values, plain, {**known, **found})))
        take(list(by(values, plain)))
    take(list(_by_names(values, plain, {**known, **found})))
    return found


def _value(model: nn.Module, named: NamedTensor) -> torch.Tensor | None:
    """The dense value of a tensor on the CPU; None where it has none, and of buffers that are no weights."""
    if named.tensor.is_meta:
        value = offloaded_value(model, named.name)
    elif is_packed(named.tensor):
        value = dequantized(model.get_submodule(named.name.rpartition(".")[0]), named.tensor)
    else:
        value = named.tensor.detach()
    return value.cpu() if value is not None and value.is_floating_point() else None


def _equal(values: Mapping[str, torch.Tensor], plain: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, str]]:
    """Pairs with the same values; of several with the same ones, as tied weights have, in their order."""
    groups: dict[object, tuple[list[str], list[str]]] = {}
    dtypes = {value.dtype for value in values.values()}
    for name, value in values.items():
        groups.setdefault(_print(value), ([], []))[0].append(name)
    for name, tensor in plain.items():
        for key in {_print(tensor.to(dtype)) for dtype in dtypes}:
            if key in groups:
                groups[key][1].append(name)
    for mine, theirs in groups.values():
        first = values[mine[0]]
        # What is the same number everywhere is told by its place, and not by its value.
        if first.numel() < FEWEST or bool((first == first.flatten()[0]).all()):
            continue
        yield from zip(mine, theirs, strict=False)


def _print(tensor: torch.Tensor) -> tuple[object, ...]:
    import torch

    bits = tensor.contiguous().flatten().view(torch.uint8)
    return tensor.dtype, tuple(tensor.shape), hash(bits.numpy().tobytes())


def _alike(values: Mapping[str, torch.Tensor], plain: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, str]]:
    """Pairs with about the same values, each the only one for the other."""
    fitting: dict[str, list[str]] = {}
    for name, value in values.items():
        for theirs, tensor in plain.items():
            if value.shape != tensor.shape or tensor.numel() < FEWEST:
                continue
            size = float(tensor.norm())
            constant = bool((tensor == tensor.flatten()[0]).all())
            if size and not constant and float((value.float() - tensor).norm()) <= ALIKE * size:
                fitting.setdefault(name, []).append(theirs)
    for name, others in fitting.items():
        if len(others) == 1 and sum(others[0] in each for each in fitting.values()) == 1:
            yield name, others[0]


def _by_names(
    values: Mapping[str, torch.Tensor], plain: Mapping[str, torch.Tensor], pairs: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    patterns = learned(pairs)
    for name, value in values.items():
        theirs = declared(name, patterns)
        if theirs is not None and theirs in plain and value.shape == plain[theirs].shape:
            yield name, theirs


def _only(values: Mapping[str, torch.Tensor], plain: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, str]]:
    """Pairs of one shape, where all tensors of that shape are of one pattern of names on both sides."""
    mine, theirs = _by_shape(values), _by_shape(plain)
    for shape, names in mine.items():
        others = theirs.get(shape, {})
        if len(names) == len(others) == 1:
            (own,), (its,) = names.values(), others.values()
            if set(own) == set(its):
                yield from ((own[numbers], its[numbers]) for numbers in own)


def _by_shape(tensors: Mapping[str, torch.Tensor]) -> dict[tuple[int, ...], dict[str, dict[tuple[str, ...], str]]]:
    """Shape -> pattern of names -> numbers in the name -> name."""
    found: dict[tuple[int, ...], dict[str, dict[tuple[str, ...], str]]] = {}
    for name, tensor in tensors.items():
        pattern, numbers = template(name)
        found.setdefault(tuple(tensor.shape), {}).setdefault(pattern, {})[numbers] = name
    return found
