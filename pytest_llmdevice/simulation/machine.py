"""Holds the state of a simulated machine: its cards, the current one, and each card's memory and random generator."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import torch

from pytest_llmdevice.simulation import presence, visibility
from pytest_llmdevice.simulation.generators import CardGenerator
from pytest_llmdevice.simulation.memory import Pool
from pytest_llmdevice.simulation.profiles import Profile

_AcceleratorError: type[RuntimeError] = getattr(torch, "AcceleratorError", RuntimeError)


class _Current(threading.local):
    """The index of the current card; every thread starts with the first card, as in CUDA."""

    index = 0


class Machine:
    """The state of one simulated machine.

    Attributes:
        profile: the description of its cards.
        device_type: PyTorch's name of the cards' type.
        places: every device that a card of it can be.
        cards: the cards that the process sees, in its order; empty until the driver has started.
        numbers: their places in the machine.
        spellings: spelling -> card, for the commonest spellings: `torch.device("cuda", 0)`, `"cuda:0"`, `0`; empty
            until a card is used.
        pools: the memory of each card, in the order in which the process sees them.
        hides_real_cards: whether a variable that was there before hides real cards, and says nothing of these.
        in_use: whether a card was used, so that the runtime is initialised.
        initialise: what initialises the runtime; a driver sets it to PyTorch's own.
        library_states: what the objects of a class of a library share, by the class and its attribute.
        saved_tensor_hooks: how many hooks for saved tensors are set; they get tensors in the middle of a function.
        needs_full_path: whether more than the devices of its operands decides about a call, so that the fast path is
            not enough: autocast or hooks for saved tensors have been used, or there are dtypes that the cards refuse.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.device_type = profile.device_type
        self.places = tuple(torch.device(self.device_type, index) for index in range(profile.count))
        self.cards: tuple[Profile, ...] = ()
        self.numbers: tuple[int, ...] = ()
        self.spellings: dict[Any, torch.device] = {}
        self.pools = tuple(Pool(index, self.device_type, card.memory) for index, card in enumerate(profile.cards))
        self._generators = tuple(CardGenerator(device) for device in self.places)
        self.in_use = False
        self.initialise: Callable[[], None] = self.use
        self._started = False
        self._before = visibility.variables(profile, os.environ)
        self.hides_real_cards = presence.hides_real_cards(profile, self._before)
        self.library_states: dict[tuple[type, str], Any] = {}
        self.saved_tensor_hooks = 0
        self.needs_full_path = any(card.refused for card in profile.cards)
        self._current = _Current()
        if self.device_type != "cuda":
            # Only of NVIDIA's and AMD's does PyTorch's own code wait for the first use.
            self.use()

    def start(self) -> None:
        """Start the driver, once: it reads which cards the process sees, and never again."""
        if self._started:
            return
        environment = visibility.variables(self.profile, os.environ)
        if self.hides_real_cards:
            environment = {name: value for name, value in environment.items() if value != self._before.get(name)}
        numbers = visibility.order(self.profile, environment)
        cards = self.profile.cards
        self.cards, self.numbers = tuple(cards[number] for number in numbers), numbers
        for pool, card in zip(self.pools, self.cards, strict=False):
            pool.total = card.memory
        self._started = True

    def use(self) -> None:
        """Start the driver, and let the cards be used: what PyTorch's initialisation comes down to."""
        self.start()
        self.in_use = True
        for index, device in enumerate(self.places[: self.count]):
            self.spellings |= dict.fromkeys((device, str(device), index), device)

    @property
    def count(self) -> int:
        """How many cards the process sees; asking starts the driver."""
        self.start()
        return len(self.cards)

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """The cards that the process sees, with their indices; asking initialises the runtime."""
        if not self.in_use:
            self.initialise()
        return self.places[: len(self.cards)]

    @property
    def generators(self) -> tuple[CardGenerator, ...]:
        """The default random generator of each card; asking initialises the runtime."""
        if not self.in_use:
            self.initialise()
        return self._generators

    @property
    def current(self) -> int:
        """The index of this thread's current card."""
        return self._current.index

    @current.setter
    def current(self, index: int) -> None:
        self.check_index(index)
        self._current.index = index

    def check_index(self, index: int) -> None:
        """Raise what PyTorch raises for the index of a card that does not exist.

        Raises:
            torch.AcceleratorError: on CUDA and ROCm (before PyTorch 2.8 a RuntimeError).
            RuntimeError: on other types of cards; on CUDA and ROCm, where the process sees none.
        """
        if not self.in_use:
            self.initialise()
        if 0 <= index < len(self.cards):
            return
        if self.device_type == "cuda":
            engine = "HIP" if self.profile.kind == "rocm" else "CUDA"
            raise _AcceleratorError(f"{engine} error: invalid device ordinal")
        raise RuntimeError(
            f"device_index >= 0 && device_index < device_count INTERNAL ASSERT FAILED: the device index is out of "
            f"range. It must be in [0, {len(self.cards)}), but got {index}."
        )

    def resolve(self, device: object) -> torch.device:
        """The device with its index, which is the current card's if none is given; other device types unchanged.

        Raises:
            RuntimeError: there is no such card.
        """
        if not isinstance(device, torch.device):
            device = torch.device(self.device_type, device) if isinstance(device, int) else torch.device(str(device))
        if device.type != self.device_type:
            return device
        index = self.current if device.index is None else device.index  # type: ignore[redundant-expr]
        self.check_index(index)
        return self.places[index]
