"""A fork lives on where its parent has left what a fork cannot end."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed

from pytest_llmdevice.diagnosis.holders import every_object
from pytest_llmdevice.monitoring.forks import fork

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="cannot fork"),
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="a group of processes needs Gloo"),
]

dist: Any = torch.distributed


@pytest.fixture
def group(tmp_path: Path) -> Iterator[list[object]]:
    """A process group of one rank, which waits for its threads at its end, in a reference cycle."""
    enabled = gc.isenabled()
    gc.disable()
    cycle: list[Any] = [dist.ProcessGroupGloo(dist.FileStore(str(tmp_path / "store"), 1), 0, 1)]
    cycle.append(cycle)
    holder: list[object] = [cycle]
    del cycle
    yield holder
    holder.clear()
    if enabled:
        gc.enable()


def status(work: Callable[[], object]) -> int:
    """How a fork ends that does `work` and then collects its garbage."""
    child = fork()
    if child == 0:
        signal.alarm(10)
        work()
        gc.collect()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def look_at_every_object() -> None:
    with every_object():
        pass


def test_garbage_of_the_parent_is_collected_there(group: list[object]) -> None:
    group.clear()
    assert status(look_at_every_object) == 0


def test_what_the_parent_keeps_is_not_collected_in_a_fork(group: list[object]) -> None:
    assert status(group.clear) == 0
