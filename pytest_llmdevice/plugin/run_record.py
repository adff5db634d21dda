"""Makes the first record of a run: what runs, where, with which versions and from which commit."""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.results.order import latest_run
from pytest_llmdevice.results.run_header import BUILTIN, Commit, Machine, MachineDevice, MatrixInfo, Run
from pytest_llmdevice.text import encodable

if TYPE_CHECKING:
    from pytest_llmdevice.hardware import Inventory
    from pytest_llmdevice.plugin.session import MatrixRun

GIT_SECONDS: Final = 10.0
"""How long git may take to say which commit this is."""


def header(run: MatrixRun, arguments: tuple[str, ...], root: Path) -> Run:
    """The record of `run`.

    Args:
        run: what the process knows about the matrix.
        arguments: pytest's.
        root: the folder whose commit it is.
    """
    started = datetime.now(UTC)
    ids = sorted(cell.id for cell in run.cells)
    return Run(
        run=f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
        started=started.isoformat(timespec="seconds"),
        after=latest_run(run.settings.results) if run.settings.results is not None else "",
        required=run.required,
        plugin=version("pytest-llmdevice"),
        # Names of files and of devices may hold bytes that are no text.
        command=("pytest", *map(encodable, arguments)),
        versions=run.inventory.versions,
        machine=machine(run.inventory),
        simulated=tuple(map(str, run.simulated_machines.profiles)),
        matrix=MatrixInfo(
            name=encodable(run.settings.matrix),
            digest=hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16],
            cells=len(ids),
        ),
        target=encodable(run.settings.target or BUILTIN),
        commit=commit(root),
        shard="" if run.shard is None else str(run.shard),
        ci=bool(os.environ.get("CI")),
    )


def machine(inventory: Inventory) -> Machine:
    """The real machine that `inventory` is about; simulated cards are no part of it."""
    return Machine(
        system=inventory.system.platform,
        architecture=inventory.system.machine,
        cpu=encodable(inventory.cpu.name),
        cores=inventory.cpu.physical or inventory.cpu.logical,
        memory=inventory.cpu.memory,
        devices=tuple(
            MachineDevice(
                spec=device.spec,
                name=encodable(device.name),
                memory=device.memory,
                capability=encodable(device.capability),
            )
            for device in inventory.devices
            if device.kind != "cpu"
        ),
    )


def commit(root: Path) -> Commit | None:
    """The commit that is checked out at `root`; None where there is no git or no repository."""
    with suppress(OSError, subprocess.SubprocessError):
        found = _git(root, "rev-parse", "HEAD").strip()
        return Commit(id=found, dirty=bool(_git(root, "status", "--porcelain", "--untracked-files=no").strip()))
    return None


def _git(root: Path, *arguments: str) -> str:
    # Of what is installed under that name, in the folder that the user runs tests in.
    return subprocess.run(  # noqa: S603
        ["git", "-C", str(root), *arguments],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
        timeout=GIT_SECONDS,
    ).stdout
