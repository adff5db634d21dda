"""Loads the model in several processes at once: in parts by transformers' plans, or as a copy in each.

The processes know one another by the environment, as `torchrun` sets it (`RANK`, `LOCAL_RANK`, `WORLD_SIZE`,
`MASTER_ADDR`, `MASTER_PORT`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.errors import UnsupportedByLibrary
from pytest_llmdevice.loading.pretrained import from_pretrained, skeleton
from pytest_llmdevice.matrix.axes import Machine, Rule, below, too_old
from pytest_llmdevice.matrix.cell import Cell

if TYPE_CHECKING:
    from torch import nn

PLANS: Final = "5.16"
"""The oldest transformers with which both plans were seen to load and generate, on the cpu."""

_SOURCE: Final = "transformers.distributed (5.23)"


def tensor_parallel(checkpoint: str, cell: Cell) -> nn.Module:
    """Load with `DistributedConfig(tp_size=WORLD_SIZE)`: the model's own plan says which dimension is cut."""
    return _by_plan(checkpoint, cell, "tp")


def fully_sharded(checkpoint: str, cell: Cell) -> nn.Module:
    """Load with `DistributedConfig(fsdp_size=WORLD_SIZE)`: every parameter is cut, and gathered to compute (FSDP2)."""
    return _by_plan(checkpoint, cell, "fsdp")


def data_parallel(checkpoint: str, cell: Cell) -> nn.Module:
    """Load a copy of the whole model with `device_map={"": device}`, on the device of this process."""
    return from_pretrained(checkpoint, cell, device_map={"": cell.torch_device})


def _by_plan(checkpoint: str, cell: Cell, kind: str) -> nn.Module:
    from transformers.distributed.configuration_utils import DistributedConfig

    model: Any = skeleton(checkpoint, cell)
    if not getattr(model, f"{kind}_plan", None):
        # transformers says the same with a ValueError.
        raise UnsupportedByLibrary(f"transformers has no {kind}_plan for {type(model).__name__}")
    size: dict[str, Any] = {f"{kind}_size": int(os.environ.get("WORLD_SIZE", "1"))}
    return from_pretrained(checkpoint, cell, distributed_config=DistributedConfig(**size))


def _sharded_is_dense(cell: Cell, _: Machine) -> str | None:
    if cell.quantization != "none":
        return f"strategy {cell.strategy} cuts dense tensors, not {cell.quantization} weights"
    return None


def _one_card_each(cell: Cell, _: Machine) -> str | None:
    if cell.index > 0:
        return f"strategy {cell.strategy} gives each process a card, from the first on; ask for it on {cell.kind}:0"
    return None


def _no_mps(cell: Cell, _: Machine) -> str | None:
    if cell.kind == "mps":
        return f"strategy {cell.strategy} needs a device for each process, and there is never more than one mps"
    return None


def _plans(cell: Cell, machine: Machine) -> str | None:
    if below(machine, "transformers", PLANS):
        return too_old(machine, "transformers", PLANS, f"for strategy {cell.strategy}")
    return None


def _on_the_accelerator(cell: Cell, machine: Machine) -> str | None:
    if cell.kind == "cpu" and any(
        machine.find(device, kind) is not None
        for device, kind in (("cuda:0", "cuda"), ("cuda:0", "rocm"), ("xpu:0", "xpu"))
    ):
        return f"strategy {cell.strategy} cannot be had on the cpu of a machine with cards: transformers takes those"
    return None


COPIES: Final = (
    Rule("one-card-for-each-rank", "the strategy's definition", _one_card_each),
    Rule("ranks-on-mps", "the strategy's definition", _no_mps),
)
SHARDED: Final = (
    *COPIES,
    Rule("sharded-is-dense", "the strategy's definition", _sharded_is_dense),
    Rule("plans-of-transformers", f"{_SOURCE}: DistributedConfig", _plans),
    Rule("plans-take-the-accelerator", f"{_SOURCE}: utils._ensure_torch_distributed", _on_the_accelerator),
)
