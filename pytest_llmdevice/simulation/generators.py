"""Draws the random numbers of simulated cards with CPU generators that report a card as their device."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Self

import torch

# Inside a simulation `torch.Generator` is the factory of `driver.generators`; this name stays PyTorch's class.
_Real: Any = torch._C.Generator


class CardGenerator(torch._C.Generator):
    """A generator whose `device` is a card. It draws what the CPU draws from the same seed, not what a card would.

    Its state is that of a CPU generator: 5056 bytes, where CUDA's has 16.
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
        """Take over the state of the generator `state`."""
        self.set_state(state.get_state())
        return self

    def __reduce__(self) -> Any:
        return _rebuild, (str(self._card), self.get_state())


def _rebuild(device: str, state: torch.Tensor) -> CardGenerator:
    generator = CardGenerator(torch.device(device))
    generator.set_state(state)
    return generator


def generator_device(generator: object) -> torch.device | None:
    """The device of a generator; None for any other object."""
    return generator.device if isinstance(generator, _Real) else None


def check_generator(generator: object, device: torch.device, name: str = "") -> None:
    """Raise what PyTorch's kernels raise for a generator of another device type than the tensors.

    On `meta` nothing is drawn, and nobody looks at it.

    Args:
        generator: what was given as the generator.
        device: where the tensors are.
        name: that of the function.

    Raises:
        RuntimeError: it is of another type.
    """
    actual = generator_device(generator)
    if actual is not None and device.type not in (actual.type, "meta"):
        if name == "poisson" and actual.type == "cuda":
            # The generator chooses the kernel.
            raise RuntimeError(
                "CUDA_tensor_apply2: Expected tensors to have CUDA DeviceType, but got tensors with type cpu and cpu"
            )
        raise RuntimeError(f"Expected a '{device.type}' device type for generator but found '{actual.type}'")


def check_generator_of_mixed(name: str, generator: object, first: torch.device) -> None:
    """The same for tensors on several devices, of functions that look at the generator before they look at those.

    Args:
        name: that of the function.
        generator: what was given as the generator.
        first: where the first tensor is.

    Raises:
        RuntimeError: it is of another type.
    """
    if name == "bernoulli_":
        check_generator(generator, first)
    if name == "binomial":
        check_generator(generator, torch.device("cuda") if first.type == "cpu" else first)


class _Drawing(threading.local):
    """The card's generator whose state this thread has put into the CPU's default generator."""

    generator: CardGenerator | None = None


_drawing = _Drawing()
# All threads share PyTorch's default generator.
_lock = threading.RLock()


class drawing:  # noqa: N801 - read as a verb: `with drawing(generator):`
    """Inside, the CPU's default random numbers come from a card's default generator and advance only that one.

    Other threads that draw on the CPU meanwhile draw from it too: PyTorch has one default generator for all.

    Args:
        generator: the card's default generator.
    """

    __slots__ = ("_generator", "_outer", "_saved")

    def __init__(self, generator: CardGenerator) -> None:
        self._generator = generator
        self._saved: torch.Tensor | None = None

    def __enter__(self) -> None:
        _lock.acquire()
        try:
            self._outer = _drawing.generator
            if self._outer is not self._generator:
                self._saved = torch.default_generator.get_state()
                torch.default_generator.set_state(self._generator.get_state())
                _drawing.generator = self._generator
        except BaseException:
            _lock.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._saved is not None:
                _drawing.generator = self._outer
                self._generator.set_state(torch.default_generator.get_state())
                torch.default_generator.set_state(self._saved)
                self._saved = None
        finally:
            _lock.release()
