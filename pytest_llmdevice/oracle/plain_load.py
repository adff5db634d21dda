"""Gives plain loads, and models without data, of a process of their own, to compare a target's models with."""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.loading.adapters import base_of, merged_load
from pytest_llmdevice.loading.checkpoint_files import fingerprint
from pytest_llmdevice.loading.pretrained import from_pretrained, skeleton
from pytest_llmdevice.loading.stored_packed import stored_method, unpacked_load
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.oracle.process import ask

if TYPE_CHECKING:
    from torch import nn

KEPT: Final = 2
"""How many plain models stay in memory: a run goes through the cells of one model one after another."""

LARGEST: Final = 2**30
"""Bytes. A model with more than this is loaded anew each time: beside the one under test there may be no room."""

_models: OrderedDict[tuple[object, ...], nn.Module] = OrderedDict()


def plain_model(checkpoint: str, dtype: str = "float32", *, live: bool = False) -> nn.Module:
    """A plain load of `checkpoint` on the cpu, unquantized, to be read only: the next caller gets the same one.

    The weights of a checkpoint that is quantized by itself are unpacked. An adapter is merged into its base; with
    `live` it is the base alone, as it is in a model whose adapters are live.

    It is never handed to a target, and its tensors are those of a process in which no target was imported; only the
    code of its classes is this process' own. Raises whatever `from_pretrained` raises.
    """
    base = base_of(checkpoint)
    merged = base != checkpoint and not live
    key = (*fingerprint(base), *(fingerprint(checkpoint) if merged else ()), dtype)
    model = _models.pop(key, None)
    if model is None:
        model = _made(checkpoint, base, dtype, merged=merged)
    if sum(tensor.nbytes for tensor in model.parameters()) <= LARGEST:
        _models[key] = model
    while len(_models) > KEPT:
        _models.popitem(last=False)
    return model


def _made(checkpoint: str, base: str, dtype: str, *, merged: bool) -> nn.Module:
    if merged:
        return ask(merged_load, checkpoint, dtype)
    if stored_method(base):
        return ask(unpacked_load, base, dtype)[0]
    return ask(from_pretrained, base, Cell("plain", "cpu", dtype))


def plain_skeleton(checkpoint: str, cell: Cell) -> nn.Module:
    """The model of `checkpoint` on the meta device, in the cell's dtype: names, classes and shapes, no data.

    What it is made of was never touched by a target. Not to be changed: the next one who asks for it gets the same.
    Raises whatever the class of the model raises.
    """
    return _skeleton(fingerprint(checkpoint), checkpoint, cell.dtype)


@lru_cache(maxsize=8)
def _skeleton(_print: tuple[object, ...], checkpoint: str, dtype: str) -> nn.Module:
    return ask(skeleton, checkpoint, Cell("plain", "cpu", dtype))
