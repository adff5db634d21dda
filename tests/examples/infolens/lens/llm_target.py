"""The loader as a target of pytest-llmdevice: ask for what the cell says, the way a user would."""

from __future__ import annotations

from typing import Any

from lens.model_loader import decide, load_model
from pytest_llmdevice import Cell


def load(checkpoint: str, cell: Cell) -> Any:
    """Load `checkpoint` as the environment variables of a user with this cell's hardware would have it."""
    plan = decide(
        cell.torch_device, force_int8=cell.quantization == "int8", cpu_force_bfloat16=cell.dtype == "bfloat16"
    )
    return load_model(checkpoint, plan)
