"""Describes where a cell ran, so far as it decides whether two outcomes can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.results.run_header import Run

LIBRARIES: Final = ("python", "torch", "transformers", "accelerate", "bitsandbytes", "cuda", "hip", "driver")
"""What a cell's outcome may depend on; of Python only the major and minor version."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Hardware and versions under one cell.

    Attributes:
        hardware: the device that computed: the card's name; the processor's where the cell is simulated or on the cpu.
        simulated: the machine that was simulated, empty for a real one.
        versions: (library, version), in the order of `LIBRARIES`, those that are there and that the cell uses.
    """

    hardware: str
    simulated_on: str
    versions: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, cell: Cell, run: Run) -> Environment:
        """Of `cell` in `run`."""
        on_cpu = cell.simulated or cell.kind == "cpu"
        card = next((device.name for device in run.machine.devices if device.spec == cell.spec), "")
        kind = f"{cell.kind}:" if cell.kind != "cpu" else ""
        simulated_on = next((one for one in run.simulated if one.partition(":")[0].startswith(cell.kind)), "")
        unused = set() if cell.quantization != "none" else {"bitsandbytes"}
        unused |= {"cuda", "hip", "driver"} if on_cpu else set()
        return cls(
            hardware=run.machine.cpu if on_cpu else f"{kind}{card}",
            simulated_on=simulated_on if cell.simulated else "",
            versions=tuple(
                (name, _short(name, run.versions[name]))
                for name in LIBRARIES
                if name in run.versions and name not in unused
            ),
        )

    def differences(self, other: Environment) -> list[str]:
        """What is another one in `other`, each in words; empty when outcomes can be compared."""
        words = []
        if self.hardware != other.hardware:
            words.append(f"{self.hardware or 'unknown hardware'} -> {other.hardware or 'unknown hardware'}")
        if self.simulated_on != other.simulated_on:
            words.append(f"simulated {self.simulated_on or 'nothing'} -> {other.simulated_on or 'nothing'}")
        mine, theirs = dict(self.versions), dict(other.versions)
        words += [
            f"{name} {mine.get(name, 'absent')} -> {theirs.get(name, 'absent')}"
            for name in LIBRARIES
            if mine.get(name) != theirs.get(name)
        ]
        return words


@dataclass(slots=True)
class Environments:
    """`Environment.of`, each worked out once: a run has thousands of cells and few environments."""

    _known: dict[tuple[str, str, str, bool, bool], Environment] = field(default_factory=dict)

    def of(self, cell: Cell, run: Run) -> Environment:
        """Of `cell` in `run`."""
        key = run.run, cell.kind, cell.device, cell.simulated, cell.quantization == "none"
        environment = self._known.get(key)
        if environment is None:
            environment = self._known[key] = Environment.of(cell, run)
        return environment


def _short(name: str, version: str) -> str:
    return ".".join(version.split(".")[:2]) if name == "python" else version


def numbered(needed: set[Environment], old: Mapping[int, Environment]) -> dict[Environment, int]:
    """A number for each: the one that it had, else that of what it replaces on the same hardware, else a new one."""
    numbers = {value: number for number, value in old.items() if value in needed}
    free = {number: value for number, value in old.items() if value not in needed}
    for value in sorted(needed - set(numbers), key=lambda each: (each.hardware, each.simulated_on, each.versions)):
        alike = (number for number, other in free.items() if _replaces(value, other))
        number = next(alike, None)
        if number is None:
            number = max((*numbers.values(), *free, -1)) + 1
        free.pop(number, None)
        numbers[value] = number
    return numbers


def _replaces(new: Environment, old: Environment) -> bool:
    same_libraries = [name for name, _ in new.versions] == [name for name, _ in old.versions]
    return (new.hardware, new.simulated_on) == (old.hardware, old.simulated_on) and same_libraries
