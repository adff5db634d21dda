"""What libraries share among objects: each load has its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from pytest_llmdevice.loading.load import Loaded
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.monitoring.library_states import separate_library_states
from pytest_llmdevice.simulation import simulate

CELL = Cell("llama", "cpu", "float32")


class _Target:
    def __init__(self, precision: str, *, fails: bool = False) -> None:
        self.precision = precision
        self.fails = fails

    def load(self, _checkpoint: str, cell: Cell) -> Any:
        self.accelerator = Accelerator(mixed_precision=self.precision, cpu=cell.device == "cpu")
        if self.fails:
            raise ValueError("broken")
        return torch.nn.Linear(2, 2)


@pytest.mark.parametrize("fails", [True, False])
def test_a_load_leaves_no_accelerator_behind(tmp_path: Path, fails: bool) -> None:
    for precision in ("bf16", "no", "bf16"):
        target = _Target(precision, fails=fails)
        loaded = Loaded.load(target, tmp_path, CELL)
        assert target.accelerator.mixed_precision == precision
        assert (loaded.model is None) == fails
        assert bool(PartialState._shared_state) != fails
        loaded.release()
        assert PartialState._shared_state == AcceleratorState._shared_state == {}
        assert target.accelerator.device.type == "cpu"


def test_a_load_inside_of_another(tmp_path: Path) -> None:
    outer = Loaded.load(_Target("bf16"), tmp_path, CELL)
    inner_target = _Target("no")
    inner = Loaded.load(inner_target, tmp_path, CELL)
    assert inner_target.accelerator.mixed_precision == "no"
    inner.release()
    assert AcceleratorState().mixed_precision == "bf16"
    Loaded.load(_Target("no"), tmp_path, CELL)  # never released
    outer.release()
    assert AcceleratorState._shared_state == {}


def test_the_users_own_accelerator_is_there_inside_and_after(tmp_path: Path) -> None:
    own = Accelerator(cpu=True)
    try:
        put_back = separate_library_states()
        assert Accelerator().device.type == "cpu"
        AcceleratorState._shared_state["added"] = 1
        put_back()
        assert "added" not in vars(own.state)
        put_back()
        assert AcceleratorState._shared_state is vars(own.state)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_a_simulated_machine_keeps_its_own(tmp_path: Path) -> None:
    machine = simulate("cuda:2")
    cell = Cell("llama", "cuda:1", "float32", simulated=True)
    with machine:
        loaded = Loaded.load(_Target("no"), tmp_path, cell)
    assert PartialState._shared_state == {}
    with machine:
        assert PartialState().device.type == "cuda"
    loaded.release()
    assert PartialState._shared_state == {}
