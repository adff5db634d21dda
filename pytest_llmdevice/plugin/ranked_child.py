"""Runs tests in one of several forked processes that load a cell together."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from pytest_llmdevice.monitoring.ranks import Together, become
from pytest_llmdevice.plugin.isolated_child import IsolatedChild

if TYPE_CHECKING:
    import pytest

    from pytest_llmdevice.plugin.session import MatrixRun


class RankedChild(IsolatedChild):
    """A process that is a rank, and has the environment of one."""

    def __init__(  # those of an isolated child, and two more
        self,
        session: pytest.Session,
        run: MatrixRun,
        pipe: Connection,
        words: int,
        printed: int,
        *,
        together: Together,
        rank: int,
    ) -> None:
        super().__init__(session, run, pipe, words, printed)
        self._together = together
        self._rank = rank

    def _prepare(self) -> None:
        become(self._together, self._rank)
        super()._prepare()
