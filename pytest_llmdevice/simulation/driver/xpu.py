"""Replaces the C functions of `torch.xpu` for Intel cards."""

from __future__ import annotations

from typing import Any

import torch

from pytest_llmdevice.simulation.driver import properties
from pytest_llmdevice.simulation.driver.runtime import replay_seed, runtime_functions, set_functions, unsupported
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.streams import Streams


def install(machine: Machine, streams: Streams, patches: Patches) -> None:
    """Make `torch.xpu` report the cards of `machine`."""
    table = runtime_functions(machine, streams) | {"synchronize": machine.check_index, "getArchFlags": lambda: "pvc"}
    set_functions(patches, torch._C, "_xpu_", table)
    patches.set(torch._C, "_has_xpu", True)
    patches.set(torch.version, "xpu", machine.profile.toolkit)
    cards = properties.Properties(machine, properties.xpu_properties)
    xpu: Any = torch.xpu
    for name, value in {
        "_exchange_device": table["exchangeDevice"],
        "_maybe_exchange_device": table["maybeExchangeDevice"],
        "_get_device_properties": cards.of,
        "_XpuDeviceProperties": properties.CardProperties,
        # Calls that PyTorch queued for the first use of a real card stay in their queue.
        "_initialized": True,
        "_is_in_bad_fork": table["isInBadFork"],
        "_cached_device_count": len(machine.devices),
        "default_generators": machine.generators[: machine.count],
    }.items():
        patches.set(xpu, name, value)
    graphs = getattr(xpu, "graphs", None)
    if graphs is not None:
        refused = unsupported("an XPU graph")
        patches.set(graphs, "_xpu_isCurrentStreamCapturing", table["isCurrentStreamCapturing"])
        patches.set(graphs, "_xpu_graph_pool_handle", refused)
        patches.set(graphs.XPUGraph, "__new__", refused)
        patches.set(graphs.graph, "__init__", refused)
    replay_seed(xpu)
