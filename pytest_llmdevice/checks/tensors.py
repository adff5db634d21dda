"""Lists the tensors of a model, and recognizes a model that is not the requested one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.loads import OTHER_MODEL, RENAMED
from pytest_llmdevice.model.names import buffers_of, parameters_of
from pytest_llmdevice.oracle.expectations import Expectations

if TYPE_CHECKING:
    import torch


def tensors(model: Any) -> Iterator[tuple[str, str, torch.Tensor]]:
    """(name, role, tensor) of every parameter and buffer, shared ones under each of their names."""
    yield from ((name, "parameter", tensor) for name, tensor in parameters_of(model).items())
    yield from ((name, "buffer", tensor) for name, tensor in buffers_of(model).items())


def foreign(expectations: Expectations, present: Mapping[str, torch.Tensor]) -> Finding | None:
    """One finding for a model that lacks more than half of what the plan has, by the names that a wrapper may give it.

    It is another model, or the checkpoint's with names that nobody knows: then as many other tensors have the shapes.
    """
    missing = [expected for expected in expectations.tensors if expected.name not in present and not expected.away]
    if len(expectations.tensors) < 4 or 2 * len(missing) <= len(expectations.tensors):
        return None
    found = f"{len(missing)} of {len(expectations.tensors)} are not there, the first one being {missing[0].name}"
    known = {expected.name for expected in expectations.tensors}
    others = Counter(tuple(tensor.shape) for name, tensor in present.items() if name not in known)
    lacking = Counter(
        expected.shape for expected in missing if expected.role == "parameter" and expected.storage != "packed"
    )
    same = (others & lacking).total()
    if 0 < lacking.total() == same:
        other = next(name for name in present if name not in known)
        found += f"; {same} others have their shapes, such as {other}"
        return Finding(
            "the model", "the tensors of the checkpoint under the names that they have there", found, RENAMED
        )
    return Finding("the model", "the tensors of the checkpoint's architecture", found, OTHER_MODEL)
