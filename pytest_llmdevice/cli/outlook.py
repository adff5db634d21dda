"""Computes which cells of a matrix a machine would run, and advises what would let it run more."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.cli.cells import cells_on, simulated_machines
from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.hardware import Decision, Inventory, decide
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.vocabulary import indexed

if TYPE_CHECKING:
    from pytest_llmdevice.matrix.schema import Matrix

_INSTALL: Final = 'python -m pip install "pytest-llmdevice[{}]"'


@dataclass(frozen=True, slots=True)
class Advice:
    """A piece of advice.

    Attributes:
        why: the reason, in a sentence.
        commands: alternative commands, any of which follows the advice.
    """

    why: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outlook:
    """The decisions about the cells of a matrix on one machine.

    Attributes:
        matrix: the name of the matrix as the user gave it.
        inventory: the machine.
        decisions: cell -> whether and how it runs.
        advice: what would let more cells run, the most important first.
    """

    matrix: str
    inventory: Inventory
    decisions: dict[Cell, Decision]
    advice: tuple[Advice, ...]

    @property
    def running(self) -> int:
        """The number of cells that run, on hardware or simulated."""
        return sum(decision.runs for decision in self.decisions.values())

    def counted(self) -> list[dict[str, Any]]:
        """The number of cells of each device, dtype, quantization and decision, as JSON-compatible data."""
        counts = Counter(
            (cell.spec, cell.simulated, cell.dtype, cell.quantization, decision.state, decision.cause, decision.reason)
            for cell, decision in self.decisions.items()
        )
        keys = ("device", "simulated", "dtype", "quantization", "verdict", "cause", "reason")
        return [{**dict(zip(keys, values, strict=True)), "cells": count} for values, count in counts.items()]


def outlook(name: str, matrix: Matrix, inventory: Inventory, installed: Mapping[str, str]) -> Outlook:
    """Decide about every cell of `matrix` on the machine `inventory`.

    Args:
        name: the name of the matrix as the user gave it.
        matrix: the matrix.
        inventory: the machine with its simulated devices.
        installed: versions of installed distributions that the inventory does not have, such as pytest-xdist.

    Raises:
        ConfigurationError: the matrix has no cells, or two with one id.
    """
    decisions = {cell: decide(cell, inventory) for cell in cells_on(matrix, inventory)}
    return Outlook(name, inventory, decisions, tuple(_advice(name, matrix, inventory, decisions, installed)))


def outdated_packages(installed: Mapping[str, str]) -> Iterator[Advice]:
    """Advise on packages that are older than this package requires, which a later `pip install` may have caused."""
    from importlib.metadata import requires

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    versions = {canonicalize_name(name): version for name, version in installed.items()}
    for text in requires("pytest-llmdevice") or ():
        requirement = Requirement(text)
        version = versions.get(canonicalize_name(requirement.name))
        if version is not None and not requirement.specifier.contains(version, prereleases=True):
            yield Advice(
                f"{requirement.name} {version} is installed, and pytest-llmdevice needs {requirement.specifier}",
                (f'python -m pip install --upgrade "{requirement.name}{requirement.specifier}"',),
            )


def _advice(
    name: str,
    matrix: Matrix,
    inventory: Inventory,
    decisions: Mapping[Cell, Decision],
    installed: Mapping[str, str],
) -> Iterator[Advice]:
    versions = {**installed, **inventory.versions}
    if inventory.failure:
        # A probe that had too little time is no broken installation.
        slow = inventory.timed_out
        yield Advice(
            "the hardware probe failed, so nothing is known of the devices and no cell would run: "
            + ("give it more time" if slow else "PyTorch has to work first"),
            ("llmdevice doctor --probe-timeout 600", "pytest --llm-matrix --llm-probe-timeout 600")
            if slow
            else ('python -c "import torch; print(torch.__version__, torch.cuda.is_available())"',),
        )
    yield from outdated_packages(versions)
    quantized = sum(cell.quantization != "none" for cell in decisions)
    if "bitsandbytes" not in versions and quantized:
        yield Advice(
            f"bitsandbytes is not installed: none of the {quantized} quantized cells can run",
            (_INSTALL.format("bitsandbytes"),),
        )
    if "pytest-xdist" not in versions:
        yield Advice(
            "pytest-xdist is not installed: cells cannot run side by side (pytest -n 2)", (_INSTALL.format("xdist"),)
        )
    if not inventory.failure:
        yield from _device_advice(name, matrix, inventory, decisions)


def _device_advice(
    name: str, matrix: Matrix, inventory: Inventory, decisions: Mapping[Cell, Decision]
) -> Iterator[Advice]:
    for variable in inventory.visible:
        yield Advice(f"{variable} is set and decides which cards are seen; without it there may be more")
    for device in inventory.devices:
        if not device.usable:
            yield Advice(
                f"{device.spec} is here and fails every dtype, as listed above; "
                "a driver that does not go with this PyTorch is the usual cause"
            )
    absent = dict.fromkeys(cell.kind for cell, decision in decisions.items() if decision.cause == "absent")
    profiles = [f"{kind}:2" if indexed(kind) else kind for kind in absent if not inventory.of_kind(kind)]
    gains = {profile: gain for profile in profiles if (gain := _simulated(matrix, inventory, profile))}
    if gains:
        named = "" if name == "default" else f" --llm-matrix-file {shlex.quote(name)}"
        yield Advice(
            "cells of devices that are not here run on simulated ones, which proves placement and dtypes, not the "
            "hardware",
            tuple(
                f"pytest --llm-matrix{named} --llm-simulate {profile}  # {gain} cells"
                for profile, gain in gains.items()
            ),
        )


def _simulated(matrix: Matrix, inventory: Inventory, profile: str) -> int:
    """The number of cells that would run on the simulated `profile`; 0 if the machine has real cards of its type."""
    try:
        machine = simulated_machines([profile]).beside(inventory)
    except ConfigurationError:
        return 0
    cells = cells_on(matrix, machine)
    return sum(decide(cell, machine).state == "run simulated" for cell in cells)
