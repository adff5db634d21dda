"""Settles before collection what a run of a matrix is about: its cells, what becomes of each, and the target."""

from __future__ import annotations

import gc
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.hardware import Decision, Inventory, ProbeProcess, decide, expand_devices, required_missing, start
from pytest_llmdevice.matrix.cell import AXES, Cell
from pytest_llmdevice.matrix.ranks import ranks_of
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.matrix.select import Selector, parse_all
from pytest_llmdevice.matrix.vocabulary import RandomState, checks
from pytest_llmdevice.simulation.inventory import SimulatedMachines, as_simulated

if TYPE_CHECKING:
    from pytest_llmdevice.loading.load import Leftovers
    from pytest_llmdevice.loading.target import Resolved, Target
    from pytest_llmdevice.matrix.schema import Matrix
    from pytest_llmdevice.plugin.options import Settings
    from pytest_llmdevice.results.shards import Shard
    from pytest_llmdevice.simulation.profiles import Profile


WORKER_INPUT: Final = "llmdevice_inventory"
"""Key under which xdist hands a worker the controller's inventory."""


@dataclass
class MatrixRun:
    """What a process knows about the matrix it runs. Make one with `begin`, then `prepare` it.

    Attributes:
        settings: what the user asked for.
        matrix: the validated matrix file.
        simulated_machines: the machines that are simulated where their devices are absent.
        known: an inventory that another process made; then no probe is started.
        hands_over: whether tests of cells run in processes that this one forks.
        forks_ranks: whether those of cells that several processes load together do.
    """

    settings: Settings
    matrix: Matrix
    simulated_machines: SimulatedMachines = field(default_factory=SimulatedMachines)
    known: Inventory | None = None
    hands_over: bool = field(default=False, init=False)
    forks_ranks: bool = field(default=False, init=False)
    _probe: ProbeProcess | None = field(default=None, repr=False)

    @classmethod
    def begin(cls, settings: Settings, inventory: Inventory | None = None) -> MatrixRun:
        """Read the matrix, which may describe quantizations, and start the probe: it overlaps all that follows.

        Raises:
            ConfigurationError: the matrix cannot be found, read or validated, or there is no such machine to simulate.
        """
        from pytest_llmdevice.matrix.expand import load

        # Before the machines, whose cards it may describe.
        matrix = load(settings.matrix, settings.base)
        simulated_machines = SimulatedMachines.read(settings.simulate)
        probe = start(settings.probe_timeout) if inventory is None else None
        return cls(settings, matrix, simulated_machines, inventory, probe)

    def prepare(self, *, warm: bool) -> None:
        """Settle everything that can be wrong about the run.

        Args:
            warm: import the heavy libraries here while the probe is under way; this process will need them.

        Raises:
            ConfigurationError: the target, a required device, a simulated one, a cell expression or the matrix is no
                good.
        """
        if warm:
            # Before the target is imported: what it patches must not be what it is held against.
            from pytest_llmdevice.oracle import process

            process.start()
        if self.settings.target is not None:
            _ = self.target
        elif warm and self.known is None:
            # Its first access imports most of what the libraries have.
            import transformers.modeling_utils  # noqa: F401
        if warm and self.simulated_machines.profiles:
            _import_on_the_real_machine()
        missing = required_missing(self.settings.require, self.inventory)
        if missing:
            raise ConfigurationError(f"--llm-require: {missing}")
        _ = self.selectors, self.elsewhere
        from pytest_llmdevice.zoo.resolve import refuse_impossible

        # What is named and not there would be skipped, and a slip of the pen be green.
        refuse_impossible(dict.fromkeys(cell.model for cell, decision in self.decisions.items() if decision.runs))
        self.settle()

    @staticmethod
    def settle() -> None:
        """Take what is in memory now for granted: libraries, later tens of thousands of tests, all stay to the end.

        Without this, every collection of garbage, and cells need some of their own, walks through all of them.
        """
        gc.freeze()

    def close(self) -> None:
        """Kill a probe that is still under way, and undo what `prepare` did to the process."""
        gc.unfreeze()
        if self._probe is not None:
            self._probe.close()

    @cached_property
    def inventory(self) -> Inventory:
        """The hardware, the simulated devices and the library versions; waits for the probe.

        Raises:
            ConfigurationError: real devices of a simulated type are here.
        """
        if self.known is not None:
            return self.simulated_machines.beside(self.known)
        assert self._probe is not None
        return self.simulated_machines.beside(self._probe.result())

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell of the matrix, also those that will not run."""
        from pytest_llmdevice.matrix.expand import cells

        found = cells(self.matrix, lambda specs: expand_devices(specs, self.inventory))
        return tuple(as_simulated(cell, self.inventory) for cell in found)

    @cached_property
    def selectors(self) -> tuple[Selector, ...]:
        """What `--llm-cell` asks for; empty when it was not given."""
        return parse_all(self.settings.cells, self.cells)

    @cached_property
    def shard(self) -> Shard | None:
        """The part of the cells that is run; None for all of them.

        Raises:
            ConfigurationError: there is no such shard.
        """
        if not self.settings.shard:
            return None
        from pytest_llmdevice.results.shards import Shard

        try:
            return Shard.parse(self.settings.shard)
        except ConfigurationError as error:
            raise ConfigurationError(f"--llm-shard: {error}") from None

    @cached_property
    def elsewhere(self) -> dict[Cell, str]:
        """The cells that belong to another shard, each with the sentence that says so; empty without `--llm-shard`.

        Raises:
            ConfigurationError: there is no such shard.
        """
        return {} if self.shard is None else self.shard.others(self.cells)

    def requested(self, cell: Cell) -> bool:
        """Whether `--llm-cell` and `--llm-shard` leave `cell` in."""
        chosen = not self.selectors or any(selector.matches(cell) for selector in self.selectors)
        return chosen and cell not in self.elsewhere

    @cached_property
    def decisions(self) -> dict[Cell, Decision]:
        """What becomes of each cell on this machine."""
        return {cell: self._decided(cell) for cell in self.cells}

    def _decided(self, cell: Cell) -> Decision:
        if not self.requested(cell):
            return Decision.skip("not requested", self.elsewhere.get(cell, "--llm-cell leaves it out"))
        decision = decide(cell, self.inventory)
        if decision.runs and self.settings.target is not None:
            from pytest_llmdevice.loading.members import offered

            if reason := offered(self.target, cell, self.settings.target):
                return Decision.skip("not offered", reason)
        return decision

    def elsewhere_runs(self, cell: Cell) -> bool:
        """Whether the tests of `cell` run in another process than this one."""
        return self.hands_over or (self.forks_ranks and ranks_of(cell) > 1)

    def beside(self, cell: Cell) -> Profile | None:
        """The cards to simulate while `cell`, one of the cpu, is looked at once more; None when there are none."""
        return self.simulated_machines.profiles[0] if self.simulated_machines.profiles and cell.kind == "cpu" else None

    def others(self, cell: Cell) -> tuple[Cell, ...]:
        """Cells of the same model that a target may be asked for between `cell` and `cell` again, at most two.

        They run on the same machine, real or simulated, and nothing is known beforehand to be wrong with them. First
        one of another dtype, then one on another device, each otherwise as like `cell` as there is.
        """
        fitting = [
            other
            for other, decision in self.decisions.items()
            if decision.runs
            and other.model == cell.model
            and other.simulated == cell.simulated
            and ranks_of(other) == ranks_of(cell)
            and (other.kind == cell.kind or not cell.simulated)
            and not any(self.xfail(other, check) for check in checks())
        ]

        def unlike(other: Cell) -> tuple[int, str]:
            return sum(getattr(other, axis) != getattr(cell, axis) for axis in AXES), other.id

        dtypes = sorted((other for other in fitting if other.dtype != cell.dtype), key=unlike)
        devices = sorted((other for other in fitting if other.device != cell.device), key=unlike)
        return tuple(dict.fromkeys(dtypes[:1] + devices[:1]))

    @cached_property
    def required(self) -> tuple[str, ...]:
        """The checks that must have run on a cell before it counts as passed, as patterns of their names.

        Those that the matrix names in `[require]`, else all that are registered.
        """
        named = self.matrix.require.checks if self.matrix.require is not None else None
        if named is None:
            return checks()
        known = [name for name in checks() if any(fnmatchcase(name, pattern) for pattern in named)]
        return (*known, *(pattern for pattern in named if not any(fnmatchcase(name, pattern) for name in known)))

    def exempt(self, cell: Cell) -> tuple[str, ...]:
        """Those of `required` that nobody asks of `cell` in this run."""
        from pytest_llmdevice.checks.check import Check, needs_cards

        beside = self.beside(cell) is not None
        return tuple(name for name, check in current().of(Check).items() if needs_cards(check) and not beside)

    @cached_property
    def resolved(self) -> Resolved:
        """The code under test, and what its import changed of the process.

        Raises:
            ConfigurationError: `--llm-target` names nothing that can be tested.
        """
        from pytest_llmdevice.loading.target import BuiltinTarget, Resolved, resolve

        return Resolved(BuiltinTarget()) if self.settings.target is None else resolve(self.settings.target)

    @property
    def target(self) -> Target:
        """The code under test."""
        return self.resolved.target

    @cached_property
    def leftovers(self) -> Leftovers:
        """The models that were loaded so far."""
        from pytest_llmdevice.loading.load import Leftovers

        return Leftovers()

    def xfail(self, cell: Cell, check: str) -> str | None:
        """Why `check` is expected to fail on `cell`, with the source; None when it is not."""
        for expectation in self.matrix.expect:
            if expectation.xfail and expectation.applies(cell, check, self.inventory.versions):
                return f"{expectation.xfail} ({expectation.source})" if expectation.source else expectation.xfail
        return None

    def tolerance(self, cell: Cell) -> float | None:
        """The tolerance that the matrix gives to `cell`, None for the one by dtype and quantization."""
        for expectation in self.matrix.expect:
            if expectation.tolerance and expectation.applies(cell, "agreement", self.inventory.versions):
                return expectation.tolerance
        return None

    def dense(self, cell: Cell) -> tuple[str, ...]:
        """Patterns of the modules that the matrix says are left unquantized in `cell` on purpose."""
        return tuple(
            pattern
            for expectation in self.matrix.expect
            if expectation.applies(cell, "quantization", self.inventory.versions)
            for pattern in expectation.dense or ()
        )

    def random_state(self, cell: Cell) -> RandomState | None:
        """What the matrix says of the global random numbers in `cell`, None where it says nothing."""
        for expectation in self.matrix.expect:
            if expectation.random_state and expectation.applies(cell, "state", self.inventory.versions):
                return expectation.random_state
        return None


def _import_on_the_real_machine() -> None:
    """Import what looks for devices while it is imported, so that it never takes a simulated one for real."""
    with warnings.catch_warnings():
        # What they deprecate is not this run's affair.
        warnings.simplefilter("ignore", DeprecationWarning)
        for name in ("torch", "transformers.modeling_utils", "accelerate"):
            import_module(name)
        # Optional; and where its import fails, the probe says so.
        with suppress(Exception):
            import_module("bitsandbytes")
