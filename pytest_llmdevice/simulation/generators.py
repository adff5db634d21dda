"""Random numbers of simulated cards: generators of the CPU that say they are a card's."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch

if TYPE_CHECKING:
    from pytest_llmdevice.simulation.machine import Machine
    from pytest_llmdevice.simulation.patches import Patches

# Inside a simulation `torch.Generator` is the factory below; this name stays PyTorch's class.
_Real: Any = torch._C.Generator


class CardGenerator(torch._C.Generator):
    """A generator whose `device` is a card. It draws what the CPU's draws from the same seed, not what a card's would.

    Its state is the CPU's: 5056 bytes, where CUDA has 16.
    """

    _card: torch.device

    def __new__(cls, device: torch.device) -> Self:
        """A generator of `device`, with the seed that PyTorch gives every new one."""
        self: Self = _Real.__new__(cls)
        self._card = device
        return self

    def __init__(self, device: torch.device) -> None: ...

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The card."""
        return self._card

    def clone_state(self) -> CardGenerator:
        """A generator of the same card that draws what this one would draw next."""
        copy = CardGenerator(self._card)
        copy.set_state(self.get_state())
        return copy

    graphsafe_get_state = clone_state

    def graphsafe_set_state(self, state: torch._C.Generator) -> CardGenerator:
        """Draw from here on what `state` would draw."""
        self.set_state(state.get_state())
        return self

    def __reduce__(self) -> Any:
        return _rebuild, (str(self._card), self.get_state())


def _rebuild(device: str, state: torch.Tensor) -> CardGenerator:
    generator = CardGenerator(torch.device(device))
    generator.set_state(state)
    return generator


def device_of(generator: object) -> torch.device | None:
    """The device that a generator says it belongs to; None for what is no generator."""
    return generator.device if isinstance(generator, _Real) else None


def check(generator: object, device: torch.device) -> None:
    """Raise what PyTorch's kernels raise for a generator of another type of device than the tensors'.

    Raises:
        RuntimeError: it is of another type.
    """
    found = device_of(generator)
    if found is not None and found.type != device.type:
        raise RuntimeError(f"Expected a '{device.type}' device type for generator but found '{found.type}'")


class _Factory(type(_Real)):  # type: ignore[misc]
    """What `torch.Generator` is inside a simulation: a class that hands out both kinds, and knows both as its own."""

    machine: Machine

    def __call__(cls, device: torch.device | str | int | None = None) -> Any:
        if "machine" not in vars(cls):  # a class that somebody derived from it
            return super().__call__() if device is None else super().__call__(device)
        machine = cls.machine
        if isinstance(device, int) and not isinstance(device, bool):
            device = torch.device(machine.device_type, device)
        # What is no device is PyTorch's to refuse.
        target = torch.device(device) if isinstance(device, (str, torch.device)) else None
        if target is None or target.type != machine.device_type:
            return _Real() if device is None else _Real(device)
        if f"{target.type}:{target.index or 0}" not in machine.profile.devices:
            raise RuntimeError("The device_index is invalid.")
        return CardGenerator(machine.resolve(target))

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _Real) if "machine" in vars(cls) else super().__instancecheck__(instance)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _Real) if "machine" in vars(cls) else super().__subclasscheck__(subclass)


def install(machine: Machine, patches: Patches) -> None:
    """Make `torch.Generator(device)` know the cards of `machine`."""
    members = {"machine": machine, "__module__": _Real.__module__, "__doc__": _Real.__doc__}
    patches.set(torch, "Generator", _Factory("Generator", (_Real,), members))


class _Drawing(threading.local):
    """The card whose state this thread has put into the CPU's default generator."""

    device: torch.device | None = None


_drawing = _Drawing()
# The default generator is one for all threads.
_lock = threading.RLock()


class drawing:  # noqa: N801 - read as a verb: `with drawing(machine, device):`
    """Inside, what the CPU draws by default comes from a card's default generator, and moves only that.

    Other threads that draw on the CPU meanwhile draw from it too: PyTorch has one default generator for all.

    Args:
        machine: whose card.
        device: the card, with its index.
    """

    __slots__ = ("_device", "_generator", "_outer", "_saved")

    def __init__(self, machine: Machine, device: torch.device) -> None:
        self._device = device
        self._generator = machine.generators[device.index]
        self._saved: torch.Tensor | None = None

    def __enter__(self) -> None:
        _lock.acquire()
        try:
            self._outer = _drawing.device
            if self._outer is not self._device:
                self._saved = torch.default_generator.get_state()
                torch.default_generator.set_state(self._generator.get_state())
                _drawing.device = self._device
        except BaseException:
            _lock.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._saved is not None:
                _drawing.device = self._outer
                self._generator.set_state(torch.default_generator.get_state())
                torch.default_generator.set_state(self._saved)
                self._saved = None
        finally:
            _lock.release()
