"""Keeps in pytest's cache which test of a cell is running, so that the run after a crash can say where it was."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Generator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_llmdevice.plugin.parametrize import cell_of

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

    from pytest_llmdevice.plugin.session import MatrixRun

FOLDER: Final = "llmdevice"
"""In the folder of pytest's cache where a run keeps a file for each of its processes."""

WORKER_RUN: Final = "llmdevice_run"
"""Key under which xdist hands a worker the name of the run."""

PREFIX: Final = "running-"


class CrashMarker:
    """The hooks that write the files, remove them at the end of a run, and speak of those that were left."""

    def __init__(self, config: pytest.Config, run: MatrixRun) -> None:
        self._run = run
        worker: dict[str, Any] = getattr(config, "workerinput", {})
        self._name: str = worker.get(WORKER_RUN) or secrets.token_hex(4)
        self._is_worker = bool(worker)
        # None with `-p no:cacheprovider`.
        cache = getattr(config, "cache", None)
        self._folder: Path | None = None if cache is None else Path(cache.mkdir(FOLDER))
        self._process = worker.get("workerid", "main")
        self._number = os.getpid()
        self._left = () if self._is_worker or self._folder is None else tuple(_left(self._folder))

    def pytest_report_header(self) -> list[str]:
        """Say in which test an earlier run ended."""
        return list(self._left)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        """Name the files of a worker after this run."""
        node.workerinput[WORKER_RUN] = self._name

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Write down which test begins."""
        cell = cell_of(item)
        if cell is not None and self._run.decisions[cell].runs and os.getpid() == self._number:
            self._write({"run": self._name, "pid": self._number, "cell": cell.id, "test": item.name, "time": _now()})
        return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Remove the files of this run, also those of workers that have died: their end was reported."""
        if self._folder is None or os.getpid() != self._number:
            return
        mine = f"{PREFIX}{self._name}-{self._process if self._is_worker else '*'}.json"
        for path in self._folder.glob(mine):
            with suppress(OSError):
                path.unlink()

    def _write(self, data: dict[str, Any]) -> None:
        if self._folder is None:
            return
        path = self._folder / f"{PREFIX}{self._name}-{self._process}.json"
        # In one step: a reader finds the one or the other. A cache that cannot be written is no reason to fail.
        with suppress(OSError):
            path.with_suffix(".new").write_text(json.dumps(data), "utf-8")
            path.with_suffix(".new").replace(path)


def _left(folder: Path) -> list[str]:
    """What there is to say about the runs that ended without a word; their files are removed."""
    said: list[str] = []
    for path in sorted(folder.glob(f"{PREFIX}*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            data = json.loads(path.read_text("utf-8"))
            if _runs(int(data["pid"])):
                continue
            said.append(
                f"llm matrix: a run before this one ended while it was in {data['cell']}, {data['test']} "
                f"({data['time']}, process {data['pid']})"
            )
        for left in (path, path.with_suffix(".new")):
            with suppress(OSError):
                left.unlink()
    return said


def _runs(number: int) -> bool:
    """Whether another process of this number is there; in a container each run may have the same one."""
    import psutil

    if number == os.getpid():
        return False
    try:
        # One that has ended and that nobody has asked for its status has a number still.
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
