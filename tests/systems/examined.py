"""Cells of the shipped matrices, and what every check says of a target on one of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path

from checkpoints import checkpoint

from pytest_llmdevice import Cell, examine, simulate
from pytest_llmdevice.loading.target import Target
from pytest_llmdevice.matrix import vocabulary
from pytest_llmdevice.matrix.expand import cells, load
from pytest_llmdevice.zoo import cache_directory

CARDS = 8

EVERY = vocabulary.checks()[-1]
"""The last check of all."""

NOISE = ("default", "ignore::DeprecationWarning", "ignore::FutureWarning")
"""What libraries warn of is no error here, as it is none in the suite."""


def cell(matrix: str, identity: str) -> Cell:
    """The cell that a shipped matrix has under this id on a machine with eight cards; simulated unless on the CPU.

    Raises:
        KeyError: the matrix has no such cell.
    """
    return cells_of(matrix)[identity]


@cache
def cells_of(matrix: str) -> dict[str, Cell]:
    """All cells of a shipped matrix on that machine, by their ids."""
    found = cells(load(matrix, Path("nowhere")), _devices)
    return {each.id: replace(each, simulated=each.kind != "cpu") for each in found}


def _devices(specs: Sequence[str]) -> list[tuple[str, str]]:
    found = []
    for spec in specs:
        kind, _, index = spec.partition(":")
        name = "cuda" if kind == "rocm" else kind
        indices = range(CARDS) if index == "*" else [int(index or 0)]
        found += [(kind, f"{name}:{number}") for number in indices] if index else [(kind, name)]
    return found


def failures(
    target: Target, asked: Cell, machine: str = "", folder: Path | None = None, *, until: str = "agreement"
) -> dict[str, str]:
    """The checks that did not pass: name -> message.

    Args:
        target: the code under test.
        asked: what is asked of it.
        machine: a profile to simulate, `""` for none.
        folder: another checkpoint than the zoo's.
        until: the last check to make. Those after `agreement` load and generate several times more: a system's first
            configuration has them all (`EVERY`), the others those before.
    """
    path = checkpoint(asked.model) if folder is None else folder
    found: dict[str, str] = {}
    with simulate(machine) if machine else nullcontext():
        for result in (results := examine(target, path, asked, folder=cache_directory() / "references")):
            if not result.passed:
                found[result.check] = result.message(asked.id)
            if result.check == until:
                break
        results.close()
    return found


def says(found: Mapping[str, str], *patterns: str) -> bool:
    """Whether each of the patterns (regular expressions) is in a line of one of the messages."""
    lines = [line for message in found.values() for line in message.splitlines()]
    return all(any(re.search(pattern, line) for line in lines) for pattern in patterns)
