"""The example projects on the path, and runs of pytest with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from answered_probe import AnsweredProbe

from pytest_llmdevice.hardware import Inventory
from pytest_llmdevice.zoo import cache_directory
from systems import projects  # noqa: F401 - they are imported by name

RunMatrix = Callable[..., pytest.RunResult]


@pytest.fixture
def without_cards(inventory: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process take the machine for one without cards, and the checkpoints that are there already."""
    alone = replace(inventory, devices=inventory.of_kind("cpu"), visible={})
    monkeypatch.setattr("pytest_llmdevice.plugin.session.start", lambda _timeout: AnsweredProbe(alone))
    monkeypatch.setenv("LLMDEVICE_CACHE", str(cache_directory()))


@pytest.fixture
def run_matrix(pytester: pytest.Pytester, without_cards: None) -> RunMatrix:
    """`run_matrix("ibench", "systems.bugs.ibench:UnmovedTarget", "cuda:8", *cells)`: a run of the suite.

    In this process: importing torch and transformers anew would take longer than all the rest.
    """

    def run(matrix: str, target: str, machine: str, *cells: str, more: tuple[str, ...] = ()) -> pytest.RunResult:
        return pytester.runpytest_inprocess(
            "--llm-matrix",
            f"--llm-matrix-file={matrix}",
            f"--llm-target={target}",
            *([f"--llm-simulate={machine}"] if machine else []),
            *(f"--llm-cell={cell}" for cell in cells),
            *("-rf", "-p", "no:cacheprovider", *more, "--pyargs", "pytest_llmdevice.suite"),
        )

    return run
