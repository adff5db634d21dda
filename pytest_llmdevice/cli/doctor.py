"""Implements `llmdevice doctor`: shows devices and versions, which cells would run, and what to install."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pytest_llmdevice.cli.cells import json_option, load_matrix, simulate_option, simulated_machines
from pytest_llmdevice.cli.layout import labelled, paragraph, table
from pytest_llmdevice.cli.output import say, say_json
from pytest_llmdevice.hardware.probe import PROBE_TIMEOUT_SECONDS
from pytest_llmdevice.matrix.vocabulary import DTYPES, quantizations
from pytest_llmdevice.text import plural

if TYPE_CHECKING:
    from pytest_llmdevice.cli.outlook import Outlook
    from pytest_llmdevice.hardware import Decision, Device, Inventory
    from pytest_llmdevice.matrix.cell import Cell
    from pytest_llmdevice.simulation.inventory import SimulatedMachines

_TOOLS: Final = ("pytest-llmdevice", "pytest", "pytest-xdist")
_OPTIONAL: Final = ("bitsandbytes", "pytest-xdist", "flash_attn")
"""Optional distributions, without which some cells do not run, or all run more slowly."""


@click.command()
@click.option("--matrix", "name", default="default", metavar="NAME_OR_PATH", help="The matrix whose cells are judged.")
@simulate_option
@click.option(
    "--probe-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=PROBE_TIMEOUT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long the hardware probe may take.",
)
@json_option
def command(name: str, simulate: tuple[str, ...], probe_timeout: float, as_json: bool) -> None:
    """Say what is here, what each kind of cell would do and why, and what would let more of them run.

    The exit code is 0 also where things are missing, and 1 when the hardware probe failed.
    """
    from pytest_llmdevice.hardware import start

    # Before the probe, which tries the quantizations that it describes, and before the machines, for its cards.
    matrix = load_matrix(name)
    machines = simulated_machines(simulate)
    with start(probe_timeout) as process:
        # These imports run while the probe runs.
        from pytest_llmdevice.cli.outlook import outlook

        tools = _installed()
        inventory = machines.beside(process.result())
    report = outlook(name, matrix, inventory, tools)
    if as_json:
        say_json(_data(report, tools))
    else:
        say(_lines(report, machines, tools))
    if inventory.failure:
        sys.exit(1)


def _installed() -> dict[str, str]:
    versions = {}
    for name in _TOOLS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _data(report: Outlook, tools: Mapping[str, str]) -> dict[str, Any]:
    inventory = asdict(report.inventory)
    # Only the names: values of environment variables do not belong in files that are shared.
    inventory["visible"] = list(report.inventory.visible)
    return {
        "matrix": report.matrix,
        "count": len(report.decisions),
        "running": report.running,
        "cells": report.counted(),
        "advice": [asdict(advice) for advice in report.advice],
        "inventory": inventory,
        "tools": dict(tools),
        "cache": dict(zip(("folder", "checkpoints"), _cache(), strict=True)),
    }


def _lines(report: Outlook, machines: SimulatedMachines, tools: Mapping[str, str]) -> Iterator[str]:
    inventory = report.inventory
    yield "Devices"
    if inventory.failure:
        yield from paragraph(f"the hardware probe failed: {inventory.failure}", first="  ")
    for device in inventory.devices:
        yield from _device(device, inventory)
    for line in machines.describe(inventory):
        yield from paragraph(line, first="  ", rest=" " * 4)
    for variable in inventory.visible:
        yield f"  {variable} is set: it hides devices, or renumbers them"
    yield ""
    yield "Versions"
    versions = {**tools, **inventory.versions}
    yield from paragraph(", ".join(f"{name} {version}" for name, version in versions.items()), first="  ")
    missing = [name for name in _OPTIONAL if name not in versions]
    if missing:
        yield from paragraph(f"not installed, and optional: {', '.join(missing)}", first="  ")
    yield ""
    yield "Cache"
    yield from paragraph(_cache_line(), first="  ")
    yield ""
    yield from paragraph(
        f"Cells of the matrix {report.matrix}: {len(report.decisions):,}, of which {report.running:,} would run"
    )
    yield from _cells(report.decisions)
    if report.advice:
        yield ""
        yield "To run more"
        for number, advice in enumerate(report.advice, 1):
            yield from paragraph(advice.why, first=f"  {number}. ")
            yield from (f"       {command}" for command in advice.commands)


def _device(device: Device, inventory: Inventory) -> Iterator[str]:
    parts = [device.name or "unknown model"]
    if device.kind == "cpu":
        cores = inventory.cpu.physical or inventory.cpu.logical
        parts.append(plural(cores, "core"))
    elif device.capability:
        parts.append(f"{'' if device.kind == 'rocm' else 'compute capability '}{device.capability}")
    parts.append(f"{device.memory / 2**30:.3g} GiB ({device.memory_free / 2**30:.3g} free)")
    yield from paragraph(f"{device.spec}: {', '.join(parts)}", first="  ", rest=" " * 4)
    trials = {**device.dtypes, **device.quantization}
    works = [name for name, trial in trials.items() if trial.ok]
    rows = [("works", " ".join(works) or "nothing")]
    errors: dict[str, list[str]] = {}
    for name, trial in trials.items():
        if not trial.ok:
            errors.setdefault(trial.error, []).append(name)
        for dtype, error in trial.failures.items() if trial.ok else ():
            errors.setdefault(error, []).append(f"{name} in {dtype}")
    rows += [("fails", f"{', '.join(names)}: {error}") for error, names in errors.items()]
    yield from labelled(rows, indent=4)


def _cache() -> tuple[str, int]:
    """The folder of the cache, with the home folder as `~`, and how many checkpoints it has."""
    from pytest_llmdevice.zoo.cache import cache_directory

    folder = cache_directory()
    home = Path.home()
    shown = f"~/{folder.relative_to(home).as_posix()}" if folder.is_relative_to(home) else str(folder)
    return shown, sum(1 for _ in folder.glob("zoo/*/config.json"))


def _cache_line() -> str:
    folder, built = _cache()
    what = plural(built, "built checkpoint") if built else "no checkpoint yet, they are built when they are needed"
    named = "" if os.environ.get("LLMDEVICE_CACHE") else "; $LLMDEVICE_CACHE puts it elsewhere"
    return f"{folder}: {what}{named}"


def _cells(decisions: Mapping[Cell, Decision]) -> Iterator[str]:
    by_device: dict[str, dict[Cell, Decision]] = {}
    for cell, decision in decisions.items():
        by_device.setdefault(f"{cell.spec}{' simulated' if cell.simulated else ''}", {})[cell] = decision
    # Cards with equal lines are shown together.
    alike: dict[tuple[str, ...], list[str]] = {}
    for device, own in by_device.items():
        alike.setdefault(tuple(_device_cells(own)), []).append(device)
    for lines, devices in alike.items():
        first, *rest = lines
        suffix = " each" if len(devices) > 1 else ""
        yield from paragraph(f"{', '.join(devices)}: {first.replace('cells', f'cells{suffix}', 1)}", first="  ")
        yield from rest


def _device_cells(decisions: Mapping[Cell, Decision]) -> Iterator[str]:
    runs = sum(decision.runs for decision in decisions.values())
    reasons: dict[str, list[Cell]] = {}
    for cell, decision in decisions.items():
        if not decision.runs:
            reasons.setdefault(decision.reason, []).append(cell)
    if not runs and len(reasons) == 1:
        yield f"{plural(len(decisions), 'cell')} not run: {next(iter(reasons))}"
        return
    yield f"{runs} of {plural(len(decisions), 'cell')} run{', by dtype and quantization:' if runs else ''}"
    if runs:
        yield from _grid(decisions)
    for reason, cells in reasons.items():
        kinds = list(dict.fromkeys(f"{cell.dtype} {cell.quantization}" for cell in cells))
        shown = ", ".join(kinds[:4]) + (", ..." if len(kinds) > 4 else "")
        yield from paragraph(f"{len(cells)} not run: {reason} ({shown})", first="    ", rest=" " * 6)


def _grid(decisions: Mapping[Cell, Decision]) -> Iterator[str]:
    """A table of how many cells of each dtype and quantization run, and of how many if not all do."""
    dtypes = [name for name in DTYPES if any(cell.dtype == name for cell in decisions)]
    present = [name for name in quantizations() if any(cell.quantization == name for cell in decisions)]
    rows = [["", *present]]
    for dtype in dtypes:
        row = [dtype]
        for quantization in present:
            runs = [
                decision.runs
                for cell, decision in decisions.items()
                if (cell.dtype, cell.quantization) == (dtype, quantization)
            ]
            row.append("-" if not runs else str(sum(runs)) if all(runs) else f"{sum(runs)} of {len(runs)}")
        rows.append(row)
    yield from table(rows, numbers=range(1, len(present) + 1), indent=4)
