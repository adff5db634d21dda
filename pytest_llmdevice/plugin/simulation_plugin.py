"""Runs the tests of a simulated cell inside the simulated machine of the cell, and all else outside of any."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from pytest_llmdevice.errors import SimulationError
from pytest_llmdevice.plugin.fixtures import NOT_OF_THE_CELL
from pytest_llmdevice.plugin.parametrize import FIXTURE, cell_of

if TYPE_CHECKING:
    from pytest_llmdevice.matrix.cell import Cell
    from pytest_llmdevice.plugin.session import MatrixRun
    from pytest_llmdevice.simulation import Simulation


class Stage:
    """Where at most one simulated machine is on at a time."""

    def __init__(self) -> None:
        self.on: Simulation | None = None

    def switch(self, machine: Simulation | None) -> None:
        """Take the machine that is on away, if it is another, and put `machine` on; None for no machine.

        Raises:
            SimulationError: `machine` cannot be simulated here; then none is on.
        """
        if machine is self.on:
            return
        # In this order, so that one that an interruption kept from being left is left the next time.
        if self.on is not None and self.on.entered:
            self.on.__exit__(None, None, None)
        self.on = machine
        if machine is not None:
            try:
                machine.__enter__()
            except BaseException:
                self.on = None
                raise


class SimulatedItems:
    """The hooks that put items and fixtures on stage; registered only when a run simulates something."""

    def __init__(self, run: MatrixRun) -> None:
        self._run = run
        self._stage = Stage()
        self._machines: dict[Cell, Simulation] = {}
        self._refusal: Exception | None = None

    # Innermost: what other plugins do around an item is done on the real machine.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Have the whole of an item, its reports too, inside the machine of its cell."""
        cell = cell_of(item)
        if cell is None or self._run.elsewhere_runs(cell) or self._run.decisions[cell].state != "run simulated":
            return (yield)
        try:
            self._stage.switch(self._machine(cell))
        except Exception as error:  # noqa: BLE001  # raised here it would end the whole run; it is the item's
            self._refusal = error
        try:
            return (yield)
        finally:
            self._refusal = None
            self._stage.switch(None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """An item whose machine cannot be simulated is an error, and no fixture is made for it."""
        if isinstance(self._refusal, SimulationError):
            pytest.fail(str(self._refusal), pytrace=False)
        if self._refusal is not None:
            raise self._refusal

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Have a fixture torn down on the machine that it was set up on.

        That of a cell is torn down by the next cell's setup, or after the last test, with another machine on or none.
        What is kept on disk for later runs is made on the real machine.
        """
        machine = self._stage.on
        if machine is None or fixturedef.scope == "function":
            return (yield)
        others: list[Simulation | None] = []

        def put_on() -> None:
            others.append(self._stage.on)
            self._stage.switch(machine)

        # Finalizers run in reverse order: this one last.
        request.addfinalizer(lambda: self._stage.switch(others.pop()))
        if fixturedef.argname == FIXTURE:
            # Fresh for each cell, and kept for as long as what was loaded on it.
            cell: Cell = request.param
            self._machines[cell] = machine
            request.addfinalizer(lambda: self._machines.pop(cell, None))
        if fixturedef.argname in NOT_OF_THE_CELL:
            self._stage.switch(None)
        try:
            return (yield)
        finally:
            request.addfinalizer(put_on)
            self._stage.switch(machine)

    def _machine(self, cell: Cell) -> Simulation:
        from pytest_llmdevice.simulation import Simulation

        if cell not in self._machines:
            self._machines[cell] = Simulation(self._run.simulated_machines.profile(cell))
        return self._machines[cell]
