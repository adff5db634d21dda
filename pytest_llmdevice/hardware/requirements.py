"""Defines what a test can require of a machine (devices, memory, capability, packages), and compares the two."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.hardware.inventory import Device, Inventory
from pytest_llmdevice.hardware.library_support import version_key
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.suggest import unknown
from pytest_llmdevice.matrix.vocabulary import kinds


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a test needs.

    Attributes:
        devices: how many devices of the cell's kind that pass its dtype; of a simulated cell, simulated ones.
        memory: total bytes that the cell's device must have, or None.
        capability: the lowest compute capability (`"8.0"`); on ROCm the architecture (`"gfx942"`); or None.
        kinds: kinds of device it is for; empty for all.
        packages: requirements on installed distributions (`"flash_attn"`, `"bitsandbytes>=0.48"`).

    Raises:
        ConfigurationError: on creation, for values that can never be met.
    """

    devices: int = 1
    memory: int | None = None
    capability: str | None = None
    kinds: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        from packaging.requirements import InvalidRequirement, Requirement

        if self.devices < 1:
            raise ConfigurationError(f"a test needs at least 1 device, not {self.devices}")
        for kind in self.kinds:
            if kind not in kinds():
                raise ConfigurationError(unknown("device kind", kind, kinds()))
        if self.capability is not None and not re.fullmatch(r"\d+\.\d+|gfx[0-9a-f]+", self.capability):
            raise ConfigurationError(f"capability {self.capability!r} is not like '8.0' or 'gfx942'")
        for package in self.packages:
            try:
                Requirement(package)
            except InvalidRequirement as error:
                problem = f"{package!r} is not a requirement such as 'flash_attn>=2.5'"
                raise ConfigurationError(problem) from error


def unmet(requirements: Requirements, cell: Cell, inventory: Inventory) -> str | None:
    """The first need that `cell` on this machine does not meet, as one sentence, or None.

    A simulated cell is judged by its simulated cards: a test that asks for two of them, or for one with enough memory,
    is a test of where things go, which they can show.
    """
    if requirements.kinds and cell.kind not in requirements.kinds:
        return f"needs a device of kind {' or '.join(requirements.kinds)}, the cell is on {cell.kind}"
    for package in requirements.packages:
        if reason := _package_unmet(package, inventory):
            return reason
    device = (inventory.find_simulated if cell.simulated else inventory.find)(cell.device, cell.kind)
    if device is None:
        return f"needs {cell.spec}, which is not here"
    if reason := _too_few(requirements.devices, cell, inventory):
        return reason
    if requirements.memory is not None and device.memory < requirements.memory:
        return f"needs {_size(requirements.memory)} of memory, {device.spec} has {_size(device.memory)}"
    return _capability_unmet(requirements.capability, device) if requirements.capability else None


def _too_few(wanted: int, cell: Cell, inventory: Inventory) -> str | None:
    if cell.simulated:
        simulated = [device.spec for device in inventory.simulated_of_kind(cell.kind)]
        return (
            None
            if len(simulated) >= wanted
            else f"needs {wanted} {cell.kind} devices, simulated: {', '.join(simulated)}"
        )
    usable = [device.spec for device in inventory.of_kind(cell.kind) if device.passed(cell.dtype)]
    if len(usable) >= wanted:
        return None
    return f"needs {wanted} {cell.kind} devices that pass {cell.dtype}, here: {', '.join(usable) or 'none'}"


def _package_unmet(package: str, inventory: Inventory) -> str | None:
    import importlib.metadata

    from packaging.requirements import Requirement

    requirement = Requirement(package)
    installed = inventory.versions.get(requirement.name)
    if installed is None:
        try:
            installed = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            return f"needs the package {package}, which is not installed"
    if not requirement.specifier.contains(installed, prereleases=True):
        return f"needs the package {package}, {installed} is installed"
    return None


def _capability_unmet(wanted: str, device: Device) -> str | None:
    present = device.capability
    if wanted.startswith("gfx") or present.startswith("gfx") or not present:
        # Architectures have no order, so only the same one will do.
        met = wanted == present
    else:
        met = version_key(present) >= version_key(wanted)
    if met:
        return None
    return f"needs compute capability {wanted}, {device.spec} {device.name} has {present or 'none'}"


def _size(count: int) -> str:
    return f"{count / 2**30:.3g} GiB"
