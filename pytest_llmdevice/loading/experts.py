"""Says why experts that a module keeps as one tensor cannot be packed as a cell asks, before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmdevice.matrix.axes import Quantization
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.model.experts import expert_stacks

if TYPE_CHECKING:
    from torch import nn


def cannot_pack_experts(why: str) -> str:
    """The sentence for a quantization that cannot do it, and what is left to do; `why` is its `no_experts`."""
    return (
        f"transformers 5 keeps the experts of a layer in one 3-D parameter, and {why}; a quantization of [[mixed]] can "
        "leave them dense"
    )


def packs_any_experts(cell: Cell) -> bool:
    """Whether nothing in the quantization of `cell` says that it cannot pack experts."""
    known = current().of(Quantization)
    entry = known.get(cell.quantization)
    return entry is None or not any(known[name].no_experts for name in entry.members)


def refused_experts(bones: nn.Module, cell: Cell) -> str:
    """Why the experts of `bones`, a model that may have no data, cannot be packed as `cell` asks; empty for nothing."""
    known = current().of(Quantization)
    entry = known[cell.quantization]
    for name, module in bones.named_modules():
        kind = known.get(entry.of_module(name, usual=True)) if expert_stacks(name, module) else None
        if kind is not None and kind.no_experts:
            return cannot_pack_experts(kind.no_experts)
    return ""
