"""Makes findings of what is wrong with a packed layer: what its quantization says, and parts on other devices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints import quantization as hints
from pytest_llmdevice.loading.packed_settings import setting_problems
from pytest_llmdevice.loading.quantization import quantization_of
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.model.device_map import with_index
from pytest_llmdevice.model.doors import device_of, parts_of
from pytest_llmdevice.model.packing import weight_of

if TYPE_CHECKING:
    from torch import nn


def packed_problems(name: str, module: nn.Module, cell: Cell, key: str, dtype: str) -> Iterator[Finding]:
    """What is wrong with the packed layer `module`, called `name`.

    Args:
        name: of the module.
        module: a layer, or what keeps a stack of experts.
        cell: what was asked for; its quantization is that of the weight.
        key: the name of the weight in the module.
        dtype: in which it is to compute.
    """
    entry = quantization_of(cell)
    own = entry.problems(name, module, cell) if key == "weight" else ()
    for problem in (*own, *setting_problems(name, module, key, entry, dtype)):
        yield Finding(problem.where, problem.expected, problem.actual, current().get("hint", problem.hint))
    weight = weight_of(module, key)
    if weight is None:
        return
    home = with_index(device_of(weight))
    for part, tensor in parts_of(weight).items():
        place = with_index(device_of(tensor))
        if "meta" not in {place, home} and place != home:
            yield Finding(f"{name}.{key}.{part}", f"{home}, as its weight", place, hints.STATE_DEVICE)
