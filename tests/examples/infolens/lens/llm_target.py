"""The loader as a target of pytest-llmdevice: ask for what the cell says, the way a user would."""

from __future__ import annotations

from typing import Any

from lens.model_loader import LoadPlan, decide, load_model
from pytest_llmdevice import Cell


def environment(cell: Cell) -> dict[str, str]:
    """What a user with this cell's hardware would have set."""
    int8, bfloat16 = cell.quantization == "int8", cell.kind == "cpu" and cell.dtype == "bfloat16"
    return {"FORCE_INT8": str(int(int8)), "CPU_FORCE_BFLOAT16": str(int(bfloat16))}


def plan(cell: Cell) -> LoadPlan:
    """The loader's plan for a cell."""
    return decide(cell.torch_device, environment(cell))


def load(checkpoint: str, cell: Cell) -> Any:
    """Load `checkpoint` by the loader's plan."""
    return load_model(checkpoint, plan(cell))
