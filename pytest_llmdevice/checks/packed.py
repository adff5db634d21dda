"""Makes findings of what is wrong with a packed layer: what its quantization says, and parts on other devices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints import quantization as hints
from pytest_llmdevice.loading.quantization import quantization_of
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.model.device_map import with_index
from pytest_llmdevice.model.doors import device_of, parts_of
from pytest_llmdevice.model.packing import weight_of

if TYPE_CHECKING:
    from torch import nn


def packed_problems(name: str, module: nn.Module, cell: Cell, key: str = "weight") -> Iterator[Finding]:
    """What is wrong with the packed layer `module`, called `name`, whose weight is called `key` there."""
    for problem in quantization_of(cell).problems(name, module, cell):
        yield Finding(problem.where, problem.expected, problem.actual, current().get("hint", problem.hint))
    weight = weight_of(module, key)
    if weight is None:
        return
    home = with_index(device_of(weight))
    for part, tensor in parts_of(weight).items():
        place = with_index(device_of(tensor))
        if "meta" not in {place, home} and place != home:
            yield Finding(f"{name}.{key}.{part}", f"{home}, as its weight", place, hints.STATE_DEVICE)
