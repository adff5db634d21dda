"""Lists the tensors of a model, and recognizes a model that is not the requested one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.loads import OTHER_MODEL
from pytest_llmdevice.oracle.expectations import Expectations

if TYPE_CHECKING:
    import torch


def tensors(model: Any) -> Iterator[tuple[str, str, torch.Tensor]]:
    """(name, role, tensor) of every parameter and buffer, shared ones under each of their names."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        yield name, "parameter", parameter
    for name, buffer in model.named_buffers(remove_duplicate=False):
        yield name, "buffer", buffer


def foreign(expectations: Expectations, present: Collection[str]) -> Finding | None:
    """One finding for a model that lacks more than half of what the plan has: it is another one, not a damaged one."""
    missing = [expected.name for expected in expectations.tensors if expected.name not in present]
    if len(expectations.tensors) < 4 or 2 * len(missing) <= len(expectations.tensors):
        return None
    return Finding(
        "the model",
        "the tensors of the checkpoint's architecture",
        f"{len(missing)} of {len(expectations.tensors)} are not there, the first one being {missing[0]}",
        OTHER_MODEL,
    )
