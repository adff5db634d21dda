"""Loads models with `from_pretrained` alone on the CPU, to compare a target's models with."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.loading.checkpoint_files import fingerprint
from pytest_llmdevice.loading.pretrained import from_pretrained
from pytest_llmdevice.matrix.cell import Cell

if TYPE_CHECKING:
    from torch import nn

KEPT: Final = 2
"""How many plain models stay in memory: a run goes through the cells of one model one after another."""

LARGEST: Final = 2**30
"""Bytes. A model with more than this is loaded anew each time: beside the one under test there may be no room."""

_models: OrderedDict[tuple[object, ...], nn.Module] = OrderedDict()


def plain_model(checkpoint: str, dtype: str = "float32") -> nn.Module:
    """A plain load of `checkpoint` on the cpu, unquantized, to be read only: the next caller gets the same one.

    It is never handed to a target. Raises whatever `from_pretrained` raises.
    """
    key = (*fingerprint(checkpoint), dtype)
    model = _models.pop(key, None)
    if model is None:
        model = from_pretrained(checkpoint, Cell("plain", "cpu", dtype))
    if sum(tensor.nbytes for tensor in model.parameters()) <= LARGEST:
        _models[key] = model
    while len(_models) > KEPT:
        _models.popitem(last=False)
    return model
