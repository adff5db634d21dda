from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pytest_llmdevice.simulation import driver
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.profiles import parse
from pytest_llmdevice.simulation.tags import Tags


@pytest.fixture
def drive() -> Iterator[Callable[[str], Machine]]:
    """Installs the driver of a machine alone: no tensor is on any card."""
    patches = Patches()

    def install(spec: str) -> Machine:
        machine = Machine(parse(spec))
        driver.install(machine, Tags(machine), patches)
        return machine

    yield install
    patches.undo()
