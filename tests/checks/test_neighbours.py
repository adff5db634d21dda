"""The reload check blames a cell for what its load leaves behind, and not for what is wrong with its neighbour."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import neighbours
import pytest

from pytest_llmdevice import Cell, simulate
from pytest_llmdevice.checks import Result, check_reload
from pytest_llmdevice.diagnosis.hints.state import OTHER_AGAIN
from pytest_llmdevice.loading.load import Loaded

Checkpoint = Callable[[str], str]

FP32 = Cell("llama", "cpu", "float32")
FP16 = Cell("llama", "cpu", "float16")
PROMPTS = [[5, 6, 7], [9, 10, 11, 12, 13, 14]]


@pytest.fixture(autouse=True)
def _as_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_first", [])
    monkeypatch.setattr(neighbours, "_loads", [])


def card(number: int) -> Cell:
    return Cell("llama", f"cuda:{number}", "float32", simulated=True)


def reloaded(target: Any, folder: str, cell: Cell, other: Cell) -> Result:
    with simulate("cuda:2") if cell.simulated else nullcontext():
        first = Loaded.load(target, Path(folder), cell)
        return check_reload(target, first.model, folder, cell, [other], PROMPTS)


@pytest.mark.parametrize(
    ("target", "cell", "other"),
    [
        (neighbours.HalfIsWhole(), FP32, FP16),
        (neighbours, FP32, FP16),
        (neighbours.SecondCardIsFirst(), card(0), card(1)),
    ],
)
def test_a_neighbour_that_is_wrong_by_itself_is_its_own_tests_matter(
    target: Any, cell: Cell, other: Cell, checkpoint: Checkpoint
) -> None:
    result = reloaded(target, checkpoint("llama"), cell, other)
    assert result.passed, result.message(cell.id)
    assert result.evidence["wrong by themselves"] == other.id


@pytest.mark.parametrize(
    ("target", "cell", "other", "hint"),
    [
        (neighbours.FirstDtype(), FP32, FP16, OTHER_AGAIN),
        (neighbours.LosesItsPlace(), card(0), card(1), OTHER_AGAIN),
        (neighbours.FirstCard(), card(0), card(1), OTHER_AGAIN),
    ],
)
def test_what_a_load_leaves_behind_for_a_neighbour_is_found(
    target: Any, cell: Cell, other: Cell, hint: Any, checkpoint: Checkpoint
) -> None:
    finding, *_ = reloaded(target, checkpoint("llama"), cell, other).findings
    assert finding.hint == hint
    assert finding.where.endswith(f"loaded as {other.id}")


def test_of_a_target_that_no_other_process_can_have_only_what_is_certain_is_said(checkpoint: Checkpoint) -> None:
    own = SimpleNamespace(load=lambda folder, cell: neighbours.HalfIsWhole().load(folder, cell))
    assert reloaded(own, checkpoint("llama"), Cell("llama", "cpu", "bfloat16"), FP16).passed
    (finding,) = reloaded(own, checkpoint("llama"), FP32, FP16).findings
    assert finding.hint == OTHER_AGAIN
