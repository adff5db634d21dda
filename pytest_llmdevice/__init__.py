"""Hardware-matrix tests for code that loads language models."""

from __future__ import annotations

from pytest_llmdevice.matrix.cell import Cell

__all__ = ["Cell"]
