"""Defines findings, finds their usual causes, and locates where in a model they begin."""

from __future__ import annotations

from pytest_llmdevice.diagnosis.failure import finding_from_exception
from pytest_llmdevice.diagnosis.finding import Finding, Hint

__all__ = ["Finding", "Hint", "finding_from_exception"]
