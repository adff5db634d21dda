"""Adds the machines of `--llm-simulate` to the inventory, and marks the cells that run on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.hardware import Device, Inventory
from pytest_llmdevice.matrix.cards import LACKS
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.simulation import visibility
from pytest_llmdevice.simulation.profiles import Profile, parse

_PROVES = "values are computed on the CPU, a pass proves placement and dtypes, not the hardware"


@dataclass(frozen=True, slots=True)
class SimulatedMachines:
    """The machines that a run simulates where their devices are absent, at most one of each kind."""

    profiles: tuple[Profile, ...] = ()

    @classmethod
    def read(cls, texts: Iterable[str], option: str = "--llm-simulate") -> SimulatedMachines:
        """Read the values of `option`, which messages name.

        Raises:
            ConfigurationError: a value that is no profile, or two machines of one kind.
        """
        by_kind: dict[str, Profile] = {}
        for text in texts:
            try:
                profile = parse(text)
            except ConfigurationError as error:
                raise ConfigurationError(f"{option}: {error}") from None
            other = by_kind.setdefault(profile.kind, profile)
            if other is not profile:
                raise ConfigurationError(
                    f"{option}: {other} and {profile} both simulate {profile.kind} cards, and a run has one machine "
                    f"of a kind: choose one"
                )
        return cls(tuple(by_kind.values()))

    def beside(self, inventory: Inventory) -> Inventory:
        """`inventory` with the simulated devices added; as it is after a failed probe, for then nothing is known.

        Raises:
            ConfigurationError: real devices of a simulated type are here.
        """
        if inventory.failure or not self.profiles:
            return inventory
        for profile in self.profiles:
            _refuse_present(profile, inventory)
        found = (device for profile in self.profiles for device in devices(profile, seen(profile, inventory)))
        return replace(inventory, simulated_devices=tuple(found))

    def profile(self, cell: Cell) -> Profile:
        """The machine that a simulated cell runs on."""
        return next(profile for profile in self.profiles if profile.covers(cell.kind, cell.device))

    def describe(self, inventory: Inventory) -> list[str]:
        """One line for each machine: its devices, the card, and what a pass on it is worth."""
        if inventory.failure:
            return []
        return [f"simulated {profile}: {_cards(profile, inventory)}; {_PROVES}" for profile in self.profiles]


def as_simulated(cell: Cell, inventory: Inventory) -> Cell:
    """`cell`, marked as simulated when its device is absent and there is a simulated one."""
    if inventory.find(cell.device, cell.kind) is None and inventory.find_simulated(cell.device, cell.kind) is not None:
        return replace(cell, simulated=True)
    return cell


def seen(profile: Profile, inventory: Inventory) -> tuple[int, ...]:
    """The places in the machine of the cards that a process sees, by the variables that were set around the probe.

    One that hides every card is about real ones where PyTorch could see some.
    """
    environment = visibility.variables(profile, inventory.visible)
    if {"cuda", "hip"} & inventory.versions.keys() and visibility.BLANK & set(environment.values()):
        environment = {}
    return visibility.order(profile, environment)


def devices(profile: Profile, numbers: tuple[int, ...] | None = None) -> tuple[Device, ...]:
    """The devices of a simulated machine as an inventory has them. Nothing was tried on them.

    Args:
        profile: the machine.
        numbers: the places in it of the cards that are seen; left out for all.
    """
    cards = profile.cards
    found = [cards[number] for number in (range(profile.seen) if numbers is None else numbers)]
    return tuple(
        Device(
            f"{profile.device_type}:{index}" if profile.indexed else profile.device_type,
            profile.kind,
            card.card,
            card.memory,
            card.memory,
            _capability(card),
            lacks=card.lacking,
        )
        for index, card in enumerate(found)
    )


def _capability(card: Profile) -> str:
    has_number = card.device_type == "cuda" and not card.architecture
    return ".".join(map(str, card.capability)) if has_number else card.architecture


def _cards(profile: Profile, inventory: Inventory) -> str:
    numbers = seen(profile, inventory)
    found = devices(profile, numbers)
    if not found:
        variables = ", ".join(
            f"{name}={value!r}" for name, value in visibility.variables(profile, inventory.visible).items()
        )
        return f"no card is seen ({variables})"
    cards = [profile.cards[number] for number in numbers]
    if len(set(cards)) > 1:
        each = [f"{device.spec} as {_size(card)}" for device, card in zip(found, cards, strict=True)]
        lacks = (f" ({lack})" if (lack := _lacks(card)) else "" for card in cards)
        return ", ".join(map("".join, zip(each, lacks, strict=True)))
    named = f"{', '.join(device.spec for device in found)} as {_size(cards[0])}{' each' if len(found) > 1 else ''}"
    return "; ".join(filter(None, (named, _lacks(cards[0]))))


def _size(card: Profile) -> str:
    return f"{card.card}, {card.memory / 2**30:.3g} GiB"


def _lacks(card: Profile) -> str:
    return ", ".join(LACKS[name] for name in card.lacking)


def _refuse_present(profile: Profile, inventory: Inventory) -> None:
    # By PyTorch's type and not by kind: a ROCm card is called `cuda:0` too, and would be shadowed by a CUDA profile.
    here = [device for device in inventory.devices if device.device.partition(":")[0] == profile.device_type]
    if here:
        named = ", ".join(f"{device.spec} ({device.name})" if device.name else device.spec for device in here)
        raise ConfigurationError(
            f"--llm-simulate: this machine has {named}, and real cards are never shadowed by {profile}: leave it out, "
            f"or run it where there is no {profile.device_type} device"
        )
