"""Offloaded weights of two checkpoints with the same names and shapes, in one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from accelerate.utils import offload_state_dict

from pytest_llmdevice import BuiltinTarget, Cell
from pytest_llmdevice.checks.another_checkpoint import negated, offloaded_findings
from pytest_llmdevice.diagnosis.hints.state import OFFLOADED_TOGETHER

CELL = Cell("llama", "cpu", "float32", strategy="disk-offload")
Checkpoint = Callable[[str], str]


class Target:
    """Offloads to a folder that `folder` gives for a checkpoint."""

    def __init__(self, folder: Callable[[str], Path], *, keep: bool = False) -> None:
        self.folder, self.keep = folder, keep

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model: Any = BuiltinTarget().load(checkpoint, Cell(cell.model, "cpu", cell.dtype))
        folder = self.folder(checkpoint)
        if not (self.keep and folder.is_dir()):
            offload_state_dict(str(folder), model.state_dict())
        disk_offload(model, str(folder), execution_device=torch.device("cpu"))
        return model


class Table:
    """Offloads to a table in memory, by the names of tensors, of its own or of all models."""

    def __init__(self, *, shared: bool) -> None:
        self.shared = shared
        self.known: dict[str, torch.Tensor] = {}

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model: Any = BuiltinTarget().load(checkpoint, Cell(cell.model, "cpu", cell.dtype))
        table = self.known if self.shared else {}
        table.update({name: tensor.clone() for name, tensor in model.state_dict().items() if name not in table})
        cpu_offload(model, torch.device("cpu"), state_dict=table)
        return model


def found(target: Any, checkpoint: str, cell: Cell = CELL) -> tuple[list[Any], dict[str, Any]]:
    findings, evidence = offloaded_findings(target, target.load(checkpoint, cell), checkpoint, cell)
    return list(findings), evidence


def wrong_targets(tmp_path: Path) -> dict[str, Any]:
    return {
        "one folder": Target(lambda _: tmp_path / "all"),
        "a folder by the name of the model": Target(lambda checkpoint: tmp_path / Path(checkpoint).resolve().name),
        "written once": Target(lambda _: tmp_path / "once", keep=True),
        "one table": Table(shared=True),
    }


@pytest.mark.parametrize("name", wrong_targets(Path()))
def test_a_place_that_two_checkpoints_share_is_found(name: str, tmp_path: Path, checkpoint: Checkpoint) -> None:
    findings, _ = found(wrong_targets(tmp_path)[name], checkpoint("llama"))
    assert [finding.hint for finding in findings] == [OFFLOADED_TOGETHER]


def right_targets(tmp_path: Path) -> dict[str, Any]:
    def own(checkpoint: str) -> Path:
        return tmp_path / str(abs(hash(checkpoint)))

    return {
        "a folder of its own": Target(own),
        "kept for the next time": Target(own, keep=True),
        "a table of its own": Table(shared=False),
        "plain": BuiltinTarget(),
    }


@pytest.mark.parametrize("name", right_targets(Path()))
def test_a_place_of_its_own_is_right(name: str, tmp_path: Path, checkpoint: Checkpoint) -> None:
    findings, evidence = found(right_targets(tmp_path)[name], checkpoint("llama"))
    assert findings == []
    assert evidence["offloaded beside another checkpoint"] >= 9


def test_a_model_without_offloaded_weights_is_not_looked_at(checkpoint: Checkpoint) -> None:
    assert found(BuiltinTarget(), checkpoint("llama"), Cell("llama", "cpu", "float32")) == ([], {})


def test_a_target_that_loads_one_checkpoint_only_is_no_finding(tmp_path: Path, checkpoint: Checkpoint) -> None:
    class Particular(Target):
        def load(self, folder: str, cell: Cell) -> Any:
            if folder != checkpoint("llama"):
                raise ValueError("unknown model")
            return super().load(folder, cell)

    findings, evidence = found(Particular(lambda _: tmp_path / "all"), checkpoint("llama"))
    assert findings == []
    assert evidence["another checkpoint"].startswith("not loaded: ValueError: unknown model")


def test_the_other_checkpoint_has_the_same_name_and_the_negatives(checkpoint: Checkpoint) -> None:
    from safetensors.torch import load_file

    source = Path(checkpoint("llama"))
    with negated(str(source)) as folder:
        assert folder is not None
        assert folder.name == source.resolve().name
        mine, others = load_file(source / "model.safetensors"), load_file(folder / "model.safetensors")
        assert mine.keys() == others.keys()
        assert all(torch.equal(mine[name], -others[name]) for name in mine)
    assert not folder.exists()
