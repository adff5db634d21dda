"""Tells whether the files of a checkpoint are still the same."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Stamp(NamedTuple):
    """Size in bytes and time of the last change in nanoseconds of one file."""

    size: int
    changed: int


def stamps(checkpoint: str | Path) -> dict[str, Stamp]:
    """The stamp of each file of the folder `checkpoint` by its name, sorted; empty for what is no folder."""
    try:
        paths = sorted(path for path in Path(checkpoint).iterdir() if path.is_file())
        statuses = {path.name: path.stat() for path in paths}
    except OSError:
        return {}
    return {name: Stamp(status.st_size, status.st_mtime_ns) for name, status in statuses.items()}


def fingerprint(checkpoint: str | Path) -> tuple[object, ...]:
    """The folder and the stamps of its files: equal only while nothing in the folder was changed."""
    return str(Path(checkpoint).resolve()), *((name, *stamp) for name, stamp in stamps(checkpoint).items())
