"""Defines the strategies, the ways in which weights reach devices: each with its loader and its limits."""

from __future__ import annotations

from typing import Final

from pytest_llmdevice.loading.strategies import parallel
from pytest_llmdevice.loading.strategies.automatic import automatic
from pytest_llmdevice.loading.strategies.mapped import cpu_offload, disk_offload, split
from pytest_llmdevice.loading.strategies.shared_memory import shared_memory
from pytest_llmdevice.loading.strategies.whole import device_map, to
from pytest_llmdevice.matrix.axes import Machine, Rule, Strategy
from pytest_llmdevice.matrix.cell import Cell

DEFINITION: Final = "the strategy's definition"


def _split_needs_cards(cell: Cell, _: Machine) -> str | None:
    if cell.kind in ("cpu", "mps"):
        return f"strategy split needs two devices of a kind, and there is never more than one {cell.kind}"
    return None


def _cpu_offload_needs_a_card(cell: Cell, _: Machine) -> str | None:
    if cell.kind in ("cpu", "mps"):
        return (
            f"strategy cpu-offload offloads nothing on {cell.kind}: accelerate leaves modules mapped to the "
            "CPU where they are when the main device is cpu or mps"
        )
    return None


def _shared_memory_is_dense(cell: Cell, _: Machine) -> str | None:
    if cell.quantization != "none":
        return f"strategy shared-memory writes dense tensors, not {cell.quantization} weights"
    return None


def _automatic_maps_choose(cell: Cell, _: Machine) -> str | None:
    if cell.index > 0:
        return f"strategy {cell.strategy} chooses among all cards itself; ask for it on {cell.kind}:0"
    return None


_CHOOSE: Final = (Rule("automatic-maps-choose", DEFINITION, _automatic_maps_choose),)

STRATEGIES: Final = (
    Strategy("to", "loads on the cpu, then `model.to(device)`", to),
    Strategy("device-map", '`device_map={"": device}`: each tensor goes to its device as it is read', device_map),
    Strategy(
        "auto", '`device_map="auto"`: accelerate fills the cards evenly', automatic, automatic=True, rules=_CHOOSE
    ),
    Strategy("balanced", '`device_map="balanced"`', automatic, automatic=True, rules=_CHOOSE),
    Strategy(
        "sequential",
        '`device_map="sequential"`: one card is filled before the next',
        automatic,
        automatic=True,
        rules=_CHOOSE,
    ),
    Strategy(
        "split",
        "a map that has the later half of the layers on the next card",
        split,
        cards=2,
        rules=(Rule("split-needs-cards", DEFINITION, _split_needs_cards),),
    ),
    Strategy(
        "cpu-offload",
        "the later half of the layers in the cpu's memory, moved to the card for each forward pass",
        cpu_offload,
        offload="memory",
        rules=(
            Rule(
                "cpu-offload-needs-a-card",
                "accelerate.big_modeling.dispatch_model: offloaded_devices leaves out 'cpu' on cpu and mps (1.15)",
                _cpu_offload_needs_a_card,
            ),
        ),
    ),
    Strategy(
        "disk-offload",
        "the later half of the layers on disk, read for each forward pass",
        disk_offload,
        offload="disk",
    ),
    Strategy(
        "shared-memory",
        "weights that another process left in shared memory, set one by one into a skeleton on meta",
        shared_memory,
        rules=(Rule("shared-memory-is-dense", DEFINITION, _shared_memory_is_dense),),
    ),
    Strategy(
        "tensor-parallel",
        "two processes, each with a part of every layer, by the model's plan (`DistributedConfig(tp_size=2)`)",
        parallel.tensor_parallel,
        ranks=2,
        shards=True,
        rules=parallel.SHARDED,
    ),
    Strategy(
        "fsdp",
        "two processes, each with a part of every parameter, gathered to compute (`DistributedConfig(fsdp_size=2)`)",
        parallel.fully_sharded,
        ranks=2,
        shards=True,
        rules=parallel.SHARDED,
    ),
    Strategy(
        "data-parallel",
        "two processes, each with the whole model on its own device",
        parallel.data_parallel,
        ranks=2,
        rules=parallel.COPIES,
    ),
)
"""In the order in which a matrix lists them."""
