"""A small project in a temporary folder, and runs of pytest in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

import pytest
from answered_probe import PLUGIN, AnsweredProbe, write_plugin
from forked_run import run_forked

# What runs in this process import too: pytester drops what a run was the first to import, and then patches of one
# module would meet another one of the same name.
import pytest_llmdevice.plugin.matrix_plugin
import pytest_llmdevice.plugin.session
import pytest_llmdevice.plugin.simulation_plugin  # noqa: F401
from pytest_llmdevice import simulation
from pytest_llmdevice.hardware import Inventory
from pytest_llmdevice.simulation import Profile

ONE_CELL = """
models = "llama"
devices = "cpu"
dtypes = "float32"
"""

TWO_CELLS = """
models = "llama"
devices = "cpu"
dtypes = ["float32", "bfloat16"]
"""


@pytest.fixture
def known_probe(inventory: Inventory, monkeypatch: pytest.MonkeyPatch) -> Callable[[Inventory], None]:
    """Makes runs in this process take an inventory instead of probing; call it to hand over another one."""

    def hand_over(other: Inventory) -> None:
        monkeypatch.setattr("pytest_llmdevice.plugin.session.start", lambda _timeout: AnsweredProbe(other))

    hand_over(inventory)
    return hand_over


@pytest.fixture
def no_cards(inventory: Inventory, known_probe: Callable[[Inventory], None]) -> Inventory:
    """A machine without accelerators, whatever this one has: what can be simulated is the same everywhere."""
    alone = replace(inventory, devices=inventory.of_kind("cpu"), visible={})
    known_probe(alone)
    return alone


class FakeSimulation:
    """Says when it is on, and does nothing else."""

    on: FakeSimulation | None = None
    made: ClassVar[list[str]] = []

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.made.append(str(profile))

    @property
    def entered(self) -> bool:
        return FakeSimulation.on is self

    def __enter__(self) -> Self:
        assert FakeSimulation.on is None, "a simulation inside a simulation"
        FakeSimulation.on = self
        return self

    def __exit__(self, *_: object) -> None:
        assert FakeSimulation.on is self
        FakeSimulation.on = None


@pytest.fixture
def fake_simulation(no_cards: Inventory, monkeypatch: pytest.MonkeyPatch) -> type[FakeSimulation]:
    """Runs in this process have `pytest_llmdevice.simulation.Simulation` as a fake, to see when it is on."""
    monkeypatch.setattr(simulation, "Simulation", FakeSimulation)
    monkeypatch.setattr(FakeSimulation, "made", [])
    monkeypatch.setattr(FakeSimulation, "on", None)
    return FakeSimulation


@pytest.fixture
def project(pytester: pytest.Pytester, known_probe: Callable[[Inventory], None]) -> pytest.Pytester:
    """An empty project; `project.runpytest` runs in this process with the known inventory."""
    # The checkpoints of the outer run: building them anew for every test would only take time.
    os.environ.setdefault("LLMDEVICE_CACHE", str(Path.home() / ".cache" / "llmdevice"))
    pytester.makefile(".toml", one=ONE_CELL, two=TWO_CELLS)
    pytester.makeini("[pytest]\nfilterwarnings =\n    ignore:`torch.jit.script:DeprecationWarning\n")
    return pytester


@pytest.fixture
def run_process(pytester: pytest.Pytester, inventory: Inventory) -> Callable[..., pytest.RunResult]:
    """`run_process(*arguments)`: a run in a process of its own that is told what this machine is."""
    # The checkpoints of the outer run, and as `project` has it.
    os.environ.setdefault("LLMDEVICE_CACHE", str(Path.home() / ".cache" / "llmdevice"))
    write_plugin(pytester.path, replace(inventory, devices=inventory.of_kind("cpu"), visible={}))
    return partial(run_forked, pytester.path, "-p", PLUGIN)
