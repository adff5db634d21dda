"""What a finding is, what usually causes it, and where in a model it began."""

from __future__ import annotations

from pytest_llmdevice.diagnosis.failure import raised
from pytest_llmdevice.diagnosis.finding import Finding, Hint

__all__ = ["Finding", "Hint", "raised"]
