"""Expands a matrix to cells for a subcommand, on assumed, simulated or real devices."""

from __future__ import annotations

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
"""The maximum of `--cards`, more than one machine has of a kind."""

F = TypeVar("F", bound=Callable[..., Any])


def simulate_option(function: F) -> F:
    """Add the option `--simulate`, which is the same as pytest's `--llm-simulate`."""
    return click.option(
        "--simulate",
        multiple=True,
        metavar="PROFILE[:COUNT]",
        help="Simulate these cards, as pytest's --llm-simulate does: 'cuda:2', 'rocm', 'mps'. Can be given again.",
    )(function)


def cards_option(function: F) -> F:
    """Add the option `--cards`, the number of cards that `cuda:*` stands for."""
    return click.option(
        "--cards",
        multiple=True,
        metavar="KIND=COUNT",
        help="How many cards the machine has that will run the cells: 'cuda=2'. 'cuda:*' is cuda:0 when left out.",
    )(function)


def json_option(function: F) -> F:
    """Add the option `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(function)


def load_matrix(name: str) -> Matrix:
    """Load the shipped matrix of this name, or the file of this path.

    Raises:
        ConfigurationError: it does not exist, cannot be read, or is invalid.
    """
    from pytest_llmdevice.matrix.expand import load

    return load(name, Path.cwd())


def cells_on(matrix: Matrix, inventory: Inventory) -> tuple[Cell, ...]:
    """Expand `matrix` on a machine with `inventory`; cells on simulated devices are marked as simulated.

    Raises:
        ConfigurationError: the matrix has no cells, or two with one id.
    """
    from pytest_llmdevice.matrix.expand import cells

    expanded = cells(matrix, lambda specs: expand_devices(specs, inventory))
    return tuple(as_simulated(cell, inventory) for cell in expanded)


def assumed(cards: Sequence[str], simulate: Iterable[str] = ()) -> Inventory:
    """The inventory of a machine that is assumed, not probed.

    Args:
        cards: its cards, as in `"cuda=2"`, in addition to the CPU.
        simulate: its simulated cards, as in `"cuda:2"`.

    Raises:
        ConfigurationError: a value is invalid, or a kind of device is given twice.
    """
    counts: dict[str, int] = {}
    for text in cards:
        kind, count = _parse_cards(text)
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
    """Parse the values of `--simulate`.

    Raises:
        ConfigurationError: a value is no profile, or there are two machines of one kind.
    """
    return SimulatedMachines.read(simulate, "--simulate")


def _parse_cards(text: str) -> tuple[str, int]:
    kind, equals, count = text.partition("=")
    if kind not in indexed_kinds():
        raise ConfigurationError(f"--cards {text!r}: {unknown('kind of card', kind, sorted(indexed_kinds()))}")
    if not equals or not (count.isascii() and count.isdecimal() and 1 <= int(count) <= MAX_CARDS):
        raise ConfigurationError(f"--cards {text!r}: write a number from 1 to {MAX_CARDS}, as in {kind}=2")
    return kind, int(count)
