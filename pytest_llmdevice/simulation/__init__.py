"""Simulates accelerators that the machine does not have: the CPU computes, PyTorch's device rules apply."""

from __future__ import annotations

from pytest_llmdevice.simulation.profiles import Profile, parse
from pytest_llmdevice.simulation.simulate import Simulation, active, simulate

__all__ = ["Profile", "Simulation", "active", "parse", "simulate"]
