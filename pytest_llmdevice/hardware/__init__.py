"""Where a cell can run: the probe, the inventory it makes, and the verdicts and needs judged against it.

Importing this package imports neither torch nor pydantic nor psutil.
"""

from __future__ import annotations

from pytest_llmdevice.hardware.devices import describe, expand_devices, required_missing
from pytest_llmdevice.hardware.inventory import Cpu, Device, Inventory, System, Trial
from pytest_llmdevice.hardware.probe import ProbeProcess, start
from pytest_llmdevice.hardware.requirements import Needs, parse_memory, unmet
from pytest_llmdevice.hardware.verdict import Verdict, judge

__all__ = [
    "Cpu",
    "Device",
    "Inventory",
    "Needs",
    "ProbeProcess",
    "System",
    "Trial",
    "Verdict",
    "describe",
    "expand_devices",
    "judge",
    "parse_memory",
    "required_missing",
    "start",
    "unmet",
]
