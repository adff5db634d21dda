"""The cells of a matrix for a subcommand: on assumed cards, on simulated ones, or on those of this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.hardware import Device, Inventory, expand_devices
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.suggest import unknown
from pytest_llmdevice.matrix.vocabulary import indexed_kinds, torch_type
from pytest_llmdevice.simulation.inventory import SimulatedMachines, as_simulated

if TYPE_CHECKING:
    from pytest_llmdevice.matrix.schema import Matrix

MAX_CARDS: Final = 64
"""More cards of a kind than a machine has."""

F = TypeVar("F", bound=Callable[..., Any])


def simulate_option(function: F) -> F:
    """`--simulate`, as `--llm-simulate` of pytest."""
    return click.option(
        "--simulate",
        multiple=True,
        metavar="PROFILE[:COUNT]",
        help="Simulate these cards, as pytest's --llm-simulate does: 'cuda:2', 'rocm', 'mps'. Can be given again.",
    )(function)


def cards_option(function: F) -> F:
    """`--cards`: how many cards `cuda:*` stands for."""
    return click.option(
        "--cards",
        multiple=True,
        metavar="KIND=COUNT",
        help="How many cards the machine has that will run the cells: 'cuda=2'. 'cuda:*' is cuda:0 when left out.",
    )(function)


def json_option(function: F) -> F:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(function)


def print_json(data: Any) -> None:
    """Write `data` to the standard output."""
    click.echo(json.dumps(data, indent=2))


def load_matrix(name: str) -> Matrix:
    """The matrix of this name, or in the file of this path.

    Raises:
        ConfigurationError: it cannot be found, read or validated.
    """
    from pytest_llmdevice.matrix.expand import load

    return load(name, Path.cwd())


def cells_on(matrix: Matrix, inventory: Inventory) -> tuple[Cell, ...]:
    """The cells of `matrix` on a machine with `inventory`; those on simulated devices are marked as simulated.

    Raises:
        ConfigurationError: the matrix has none, or two with one id.
    """
    from pytest_llmdevice.matrix.expand import cells

    found = cells(matrix, lambda specs: expand_devices(specs, inventory))
    return tuple(as_simulated(cell, inventory) for cell in found)


def assumed(cards: Sequence[str], simulate: Iterable[str] = ()) -> Inventory:
    """A machine that has the cpu, `cards` (`"cuda=2"`), and simulates those of `simulate`. Nothing was tried on it.

    Raises:
        ConfigurationError: a value is none, or a kind of device is there twice.
    """
    counts: dict[str, int] = {}
    for text in cards:
        kind, count = _counted(text)
        if kind in counts:
            raise ConfigurationError(f"--cards {text}: {kind} is given twice")
        counts[kind] = count
    devices = [Device("cpu", "cpu")]
    for kind, count in counts.items():
        devices += [Device(f"{torch_type(kind)}:{index}", kind) for index in range(count)]
    machines = simulated_machines(simulate)
    twice = [profile.kind for profile in machines.profiles if profile.kind in counts]
    if twice:
        raise ConfigurationError(
            f"--cards and --simulate both have {twice[0]}: a machine has real cards of a kind or simulated ones"
        )
    return machines.beside(Inventory(tuple(devices)))


def simulated_machines(simulate: Iterable[str]) -> SimulatedMachines:
    """The machines of `--simulate`.

    Raises:
        ConfigurationError: a value that is no profile, or two machines of one kind.
    """
    return SimulatedMachines.read(simulate, "--simulate")


def _counted(text: str) -> tuple[str, int]:
    kind, equals, count = text.partition("=")
    if kind not in indexed_kinds():
        raise ConfigurationError(f"--cards {text!r}: {unknown('kind of card', kind, sorted(indexed_kinds()))}")
    if not equals or not (count.isascii() and count.isdecimal() and 1 <= int(count) <= MAX_CARDS):
        raise ConfigurationError(f"--cards {text!r}: write a number from 1 to {MAX_CARDS}, as in {kind}=2")
    return kind, int(count)
