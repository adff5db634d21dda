"""Runs a matrix on a real card and once more simulated, and tells where the two differ."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_llmdevice.results.cell_view import base_id
from pytest_llmdevice.results.records import Check
from pytest_llmdevice.results.store import read

MATRIX: Final = "cuda"

Checks = Mapping[tuple[str, str], Check]


def run(folder: Path, *, simulate: str = "", workers: int = 1) -> Checks:
    """The checks of the matrix on the cards that are here, or on those that are simulated instead, by cell and name.

    Args:
        folder: where the results go.
        simulate: what to simulate; the real cards are hidden then.
        workers: how many processes.
    """
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--llm-matrix", "--llm-matrix-file", MATRIX,
        "--pyargs", "pytest_llmdevice.suite", "--llm-results", str(folder), "-n", str(workers),
    ]  # fmt: skip
    environment = dict(os.environ)
    if simulate:
        command += ["--llm-simulate", simulate]
        environment["CUDA_VISIBLE_DEVICES"] = "-1"
    # Whether something failed is what is asked.
    subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL)
    return {(base_id(check.cell), check.check): check for file in read(folder) for check in file.checks}


@dataclass(frozen=True, slots=True)
class Apart:
    """A check with another outcome on the card than simulated.

    Attributes:
        cell: the cell's id.
        check: the name of the check.
        real: its outcome on the card.
        simulated: its outcome in the simulation.
        message: what was found where it failed.
    """

    cell: str
    check: str
    real: str
    simulated: str
    message: str


def apart(real: Checks, simulated: Checks) -> list[Apart]:
    """The checks that both made, with different outcomes."""
    found = []
    for key, check in real.items():
        other = simulated.get(key)
        if other is not None and other.outcome != check.outcome:
            message = (check.message or other.message).partition("\n")[0]
            found.append(Apart(*key, check.outcome, other.outcome, message))
    return found


@dataclass(frozen=True, slots=True)
class Error:
    """How far the logits of cells are from the reference.

    Attributes:
        dtype: the dtype of the cells.
        quantization: their quantization.
        cells: how many there are.
        largest: the largest relative error of one.
        tolerance: the largest that is allowed.
    """

    dtype: str
    quantization: str
    cells: int
    largest: float
    tolerance: float


def errors(checks: Checks, axes: Mapping[str, tuple[str, str]]) -> list[Error]:
    """The measured errors by dtype and quantization.

    Args:
        checks: the checks of a run.
        axes: cell -> its dtype and quantization.
    """
    measured: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for (cell, name), check in checks.items():
        if name == "agreement" and "relative error" in check.evidence and cell in axes:
            pair = float(check.evidence["relative error"]), float(check.evidence["tolerance"])
            measured.setdefault(axes[cell], []).append(pair)
    return [
        Error(dtype, quantization, len(pairs), max(error for error, _ in pairs), max(most for _, most in pairs))
        for (dtype, quantization), pairs in sorted(measured.items())
    ]


def axes_of(folder: Path) -> dict[str, tuple[str, str]]:
    """The dtype and quantization of each cell of the run in `folder`."""
    return {
        base_id(planned.cell): (planned.dtype, planned.quantization)
        for file in read(folder)
        for planned in file.planned.values()
    }


def page(head: Iterable[str], different: Iterable[Apart], real: Iterable[Error], simulated: Iterable[Error]) -> str:
    """What a card has shown, in Markdown."""
    return "\n".join([*head, "", *_apart_table(different), "", *_error_table(real, simulated)]) + "\n"


def _apart_table(different: Iterable[Apart]) -> Iterator[str]:
    rows = list(different)
    yield "## Checks with another outcome on the card than simulated"
    yield ""
    if not rows:
        yield "None."
        return
    yield "| cell | check | card | simulated | found |"
    yield "|---|---|---|---|---|"
    for row in rows:
        message = row.message.replace("|", "\\|")
        yield f"| `{row.cell}` | {row.check} | {row.real} | {row.simulated} | {message} |"


def _error_table(real: Iterable[Error], simulated: Iterable[Error]) -> Iterator[str]:
    beside = {(error.dtype, error.quantization): error for error in simulated}
    yield "## Relative error of the logits"
    yield ""
    yield "| dtype | quantization | cells | card | simulated | tolerance |"
    yield "|---|---|---|---|---|---|"
    for error in real:
        other = beside.get((error.dtype, error.quantization))
        largest = "" if other is None else f"{other.largest:.3g}"
        yield (
            f"| {error.dtype} | {error.quantization} | {error.cells} | {error.largest:.3g} | {largest} "
            f"| {error.tolerance:g} |"
        )
