"""`simulate("cuda:2")`: simulated cards for as long as a `with` block lasts."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Final, Self

from pytest_llmdevice.errors import SimulationError
from pytest_llmdevice.simulation.profiles import Profile, parse


class Simulation:
    """A simulated machine, entered as a context, as often as wanted but not twice at a time.

    Inside, `torch` reports the profile's cards, a tensor sent to one of them says that it is there, and an operation
    on tensors of different devices raises what PyTorch raises. All values are computed by the CPU. Tensors made in one
    entry are where they were in the next one; outside they are the CPU tensors that they always were.

    Attributes:
        profile: the cards.
        machine: their state: the memory that tensors hold, random generators, the current card.

    Raises:
        SimulationError: on entering, when real devices of that type are here or another simulation is under way in
            this process; inside, for what cannot be simulated, and when a library that looks for devices while it is
            imported is imported too late.
    """

    _active: Simulation | None = None
    _lock: Final = threading.Lock()

    def __init__(self, profile: Profile) -> None:
        from pytest_llmdevice.simulation.functions import Functions
        from pytest_llmdevice.simulation.handlers import handlers
        from pytest_llmdevice.simulation.machine import Machine
        from pytest_llmdevice.simulation.presence import refuse_real_devices
        from pytest_llmdevice.simulation.tags import Tags

        if Simulation._active is None:
            refuse_real_devices(profile)
        self.profile = profile
        self.machine = Machine(profile)
        self._tags = Tags(self.machine)
        self._functions = Functions(self.machine, self._tags, handlers())
        self._patches: Any = None

    def __enter__(self) -> Self:
        from pytest_llmdevice.simulation import installation, presence
        from pytest_llmdevice.simulation.patches import Patches

        with Simulation._lock:
            if Simulation._active is not None:
                raise SimulationError(
                    f"a simulation of {Simulation._active.profile} is under way in this process; leave it before "
                    f"another of {self.profile} begins"
                )
            presence.refuse_real_devices(self.profile)
            Simulation._active = self
        patches = Patches()
        try:
            installation.install(self.machine, self._tags, self._functions, patches)
        except BaseException:
            patches.undo()
            Simulation._active = None
            raise
        self._patches = patches
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._patches is None:
            raise SimulationError(f"this simulation of {self.profile} was not entered")
        try:
            self._patches.undo()
        finally:
            self._patches = None
            Simulation._active = None


def active() -> Simulation | None:
    """The simulation that is under way in this process, or None."""
    return Simulation._active


def simulate(spec: str) -> Simulation:
    """A machine with simulated cards, to be entered with `with`.

    Args:
        spec: a profile, with a count and a size of memory where they differ: `"cuda"`, `"cuda:2"`, `"rocm:8"`,
            `"cuda-t4:2,memory=16GiB"`, `"mps"`, `"xpu"`.

    Raises:
        ConfigurationError: an unknown profile or setting, or a count outside 1 to 8.
        SimulationError: real devices of that type are here.
    """
    return Simulation(parse(spec))
