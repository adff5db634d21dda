"""The restored model as a target of pytest-llmdevice."""

from __future__ import annotations

from typing import Any

from experts import restore
from pytest_llmdevice import Cell


def load(checkpoint: str, cell: Cell) -> Any:
    """Load `checkpoint` as `cell` asks."""
    return restore.load(checkpoint, cell.torch_device, cell.torch_dtype)
