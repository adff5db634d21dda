"""Simulated devices: real code and real tensors, computed by the CPU, under the placement rules of PyTorch."""

from __future__ import annotations

from pytest_llmdevice.simulation.profiles import Profile, parse
from pytest_llmdevice.simulation.simulate import Simulation, active, simulate

__all__ = ["Profile", "Simulation", "active", "parse", "simulate"]
