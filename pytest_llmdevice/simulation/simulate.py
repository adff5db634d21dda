"""Provides `simulate("cuda:2")`, a context in which PyTorch has simulated cards."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Final, Self

from pytest_llmdevice.errors import SimulationError
from pytest_llmdevice.simulation.profiles import Profile, parse


class Simulation:
    """A simulated machine, entered with `with`; it can be entered again after it was left.

    Inside, `torch` reports the profile's cards, a tensor sent to a card reports that card as its device, and an
    operation on tensors of different devices raises what PyTorch raises. All values are computed by the CPU. A tensor
    keeps its card when the simulation is entered again; outside, it is an ordinary CPU tensor.

    Attributes:
        profile: the description of the cards.
        machine: the cards' state: the memory that tensors hold, random generators, the current card.

    Raises:
        SimulationError: on entering, when the machine has real devices of that type or another simulation is active
            in this process; inside, for what cannot be simulated, and for the import of a library that looks for
            devices at import.
    """

    _active: Simulation | None = None
    _lock: Final = threading.Lock()

    def __init__(self, profile: Profile) -> None:
        from pytest_llmdevice.simulation.functions import FunctionMode
        from pytest_llmdevice.simulation.handlers import handler_table
        from pytest_llmdevice.simulation.machine import Machine
        from pytest_llmdevice.simulation.presence import refuse_real_devices
        from pytest_llmdevice.simulation.tags import Tags

        if Simulation._active is None:
            refuse_real_devices(profile)
        self.profile = profile
        self.machine = Machine(profile)
        self._tags = Tags(self.machine)
        self._mode = FunctionMode(self.machine, self._tags, handler_table())
        self._patches: Any = None

    def __enter__(self) -> Self:
        from pytest_llmdevice.simulation import installation, presence
        from pytest_llmdevice.simulation.patches import Patches

        patches = Patches()
        try:
            with Simulation._lock:
                if Simulation._active is not None:
                    raise SimulationError(
                        f"a simulation of {Simulation._active.profile} is under way in this process; leave it before "
                        f"another of {self.profile} begins"
                    )
                presence.refuse_real_devices(self.profile)
                Simulation._active = self
            installation.install(self.machine, self._tags, self._mode, patches)
            self._patches = patches
            return self  # noqa: TRY300  # here, an interruption just before it undoes all
        except BaseException:
            patches.undo()
            if self._patches in {None, patches}:
                self._end()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._patches is None:
            raise SimulationError(f"this simulation of {self.profile} was not entered")
        try:
            self._leave()
        except BaseException:
            self._leave()  # what an interruption has left to be done
            raise

    @property
    def entered(self) -> bool:
        """Whether it was entered and not left since."""
        return self._patches is not None

    def _leave(self) -> None:
        if self._patches is not None:
            self._patches.undo()
        self._end()

    def _end(self) -> None:
        if Simulation._active is self:
            Simulation._active = None
        self._patches = None


def active() -> Simulation | None:
    """The simulation that is active in this process, or None."""
    return Simulation._active


def simulate(spec: str) -> Simulation:
    """Create a machine with simulated cards, to be entered with `with`.

    Args:
        spec: a profile, optionally with a count of cards and their memory: `"cuda"`, `"cuda:2"`, `"rocm:8"`,
            `"cuda-t4:2,memory=16GiB"`, `"mps"`, `"xpu"`.

    Raises:
        ConfigurationError: an unknown profile or setting, or a count outside 1 to 8.
        SimulationError: the machine has real devices of that type.
    """
    return Simulation(parse(spec))
