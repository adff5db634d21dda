"""Knows whether this process is one of several that load a cell together, and lets those agree.

They agree through memory that they share since they were forked, and not by a process group: whether the code under
test makes one is its own affair.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

SECONDS: Final = 120.0
"""How long one rank waits for the others to come to the same question."""


class RanksApart(RuntimeError):
    """The ranks of a cell are not at the same place: one is in another test, or has ended."""


@dataclass(frozen=True)
class Together:
    """What the ranks of a cell share. Made before they are forked.

    Attributes:
        size: how many ranks there are.
        port: of loopback, for the first process group that they make.
        folders: the beginning of the paths of folders that they share.
    """

    size: int
    port: int = 0
    folders: str = ""
    _flags: Any = field(default=None, repr=False)
    _barrier: Any = field(default=None, repr=False)

    @classmethod
    def of(cls, size: int) -> Together:
        """For `size` ranks, with a port that nobody listens on now."""
        context = multiprocessing.get_context("fork")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        folders = str(Path(tempfile.gettempdir()) / f"llmdevice-ranks-{secrets.token_hex(6)}-")
        return cls(size, port, folders, context.Array("b", size), context.Barrier(size))

    def environment(self, rank: int) -> Mapping[str, str]:
        """What `torchrun` says to the process of number `rank`.

        https://docs.pytorch.org/docs/2.13/elastic/run.html#environment-variables
        """
        return {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
            "ROLE_RANK": str(rank),
            "WORLD_SIZE": str(self.size),
            "LOCAL_WORLD_SIZE": str(self.size),
            "ROLE_WORLD_SIZE": str(self.size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port),
        }

    def any(self, rank: int, *, said: bool) -> bool:  # the answer of this rank
        """Whether any rank says yes; each asks at the same place.

        Raises:
            RanksApart: the others did not come to it.
        """
        try:
            self._flags[rank] = said
            self._barrier.wait(SECONDS)
            found = any(self._flags)
            self._barrier.wait(SECONDS)
        except Exception as error:
            raise RanksApart(f"rank {rank} of {self.size} waited for the others in vain") from error
        return found


_here: list[tuple[Together, int]] = []
_folders = itertools.count()


def become(together: Together, rank: int) -> None:
    """Make this process the one of number `rank`, for the rest of its life."""
    os.environ.update(together.environment(rank))
    _here[:] = [(together, rank)]


def rank_here() -> int:
    """The number of this process among those of its cell; 0 for an ordinary process."""
    return _here[0][1] if _here else 0


def size_here() -> int:
    """How many processes load the cell together; 1 for an ordinary process."""
    return _here[0][0].size if _here else 1


def any_rank(*, said: bool) -> bool:  # the answer of this rank
    """Whether `said` is true here or in another rank of the cell.

    Raises:
        RanksApart: the others did not come to the same place.
    """
    if not _here:
        return said
    together, rank = _here[0]
    return together.any(rank, said=said)


@contextmanager
def own_folder(prefix: str) -> Iterator[Path]:
    """A new temporary folder of this process, whose name begins with `prefix`."""
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextmanager
def shared_folder(prefix: str) -> Iterator[Path]:
    """A new temporary folder; in the ranks of a cell, which all ask for it, the same one.

    Args:
        prefix: the beginning of its name in an ordinary process.
    """
    if not _here:
        with own_folder(prefix) as own:
            yield own
        return
    together, rank = _here[0]
    folder = Path(f"{together.folders}{next(_folders)}")
    if rank == 0:
        folder.mkdir(mode=0o700)
    any_rank(said=False)
    try:
        yield folder
    finally:
        any_rank(said=False)
        if rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
