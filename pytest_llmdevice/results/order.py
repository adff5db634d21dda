"""Orders runs by when they were made, also where a clock was set back between them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pydantic import ValidationError

from pytest_llmdevice.results.records import adapter
from pytest_llmdevice.results.run_header import SUFFIX, Run

if TYPE_CHECKING:
    from pytest_llmdevice.results.store import RunFile

_Place: TypeAlias = tuple[datetime, int, str]


def in_order(files: Iterable[RunFile]) -> list[RunFile]:
    """`files`, the oldest run first; see `places`."""
    given = list(files)
    place = places({file.run.run: file.run for file in given})
    return sorted(given, key=lambda file: place[file.run.run])


def latest_run(folder: Path) -> str:
    """The identifier of the latest run in `folder`; empty where there is none. What cannot be read is passed over."""
    runs: dict[str, Run] = {}
    for path in folder.glob(f"*{SUFFIX}"):
        with suppress(OSError, ValidationError), path.open("rb") as file:
            record = adapter().validate_json(file.readline())
            if isinstance(record, Run):
                runs[record.run] = record
    place = places(runs)
    return max(place, key=lambda name: place[name], default="")


def places(runs: dict[str, Run]) -> dict[str, _Place]:
    """Where each run is among all of them, as something that sorts, by identifier.

    Each run names the one that was the latest in its folder when it began, and comes behind it whatever their clocks
    said. Runs of different folders are ordered by the time that they say.
    """
    known: dict[str, _Place] = {}
    for name in runs:
        _place(name, runs, known)
    return known


def _place(name: str, runs: dict[str, Run], known: dict[str, _Place]) -> None:
    """Find the place of the run `name`, and of those that it came after."""
    waiting = [name]
    # From the run back to the first one whose predecessor is known or is not there; a circle is cut where it closes.
    while (before := runs[waiting[-1]].after) in runs and before not in known and before not in waiting:
        waiting.append(before)
    for each in reversed(waiting):
        run = runs[each]
        moment, behind = run.when, 0
        if run.after in known:
            latest, place, _ = known[run.after]
            moment, behind = max(moment, latest), place + 1
        known[each] = moment, behind, each
