"""Finds out which devices a machine has, and decides which cells can run there.

Importing this package imports neither torch nor pydantic nor psutil.
"""

from __future__ import annotations

from pytest_llmdevice.hardware.decision import Decision, decide
from pytest_llmdevice.hardware.devices import describe, expand_devices, required_missing
from pytest_llmdevice.hardware.inventory import Cpu, Device, Inventory, SmokeTest, System
from pytest_llmdevice.hardware.probe import ProbeProcess, start
from pytest_llmdevice.hardware.requirements import Requirements, unmet
from pytest_llmdevice.matrix.memory_size import parse_memory

__all__ = [
    "Cpu",
    "Decision",
    "Device",
    "Inventory",
    "ProbeProcess",
    "Requirements",
    "SmokeTest",
    "System",
    "decide",
    "describe",
    "expand_devices",
    "parse_memory",
    "required_missing",
    "start",
    "unmet",
]
