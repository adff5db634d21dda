"""Checks that weights are tied as the checkpoint says, on one device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.tensors import foreign, tensors
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.placement import TIED
from pytest_llmdevice.matrix.vocabulary import dtype_name
from pytest_llmdevice.model.device_map import offload_hook, with_index
from pytest_llmdevice.model.doors import device_of, dtype_of, same_data
from pytest_llmdevice.model.names import parameters_of
from pytest_llmdevice.oracle.expectations import Expectations

if TYPE_CHECKING:
    import torch
    from torch import nn


def check_tied(model: nn.Module, expectations: Expectations) -> Result:
    """Weights that the configuration ties share one tensor, and an untied head does not share the embedding."""
    present = parameters_of(model)
    if another := foreign(expectations, {name: tensor for name, _, tensor in tensors(model)}):
        return Result("tied", (another,))
    findings = []
    for group in expectations.ties:
        first = group[0]
        for name in group[1:]:
            if first not in present or name not in present:
                missing = first if first not in present else name
                findings.append(Finding(missing, f"tied to {first}", "nothing of that name"))
            elif not _shared(model, first, name, present):
                findings.append(Finding(name, f"the same tensor as {first}", _apart(present, first, name), TIED))
    for embedding, head in expectations.untied:
        if embedding in present and head in present and _shared(model, embedding, head, present):
            findings.append(
                Finding(head, "a tensor of its own (tie_word_embeddings is false)", f"the tensor of {embedding}")
            )
    evidence = {"tied tensors": sum(map(len, expectations.ties)), "untied pairs": len(expectations.untied)}
    return Result("tied", tuple(findings), evidence)


def _apart(present: dict[str, nn.Parameter], first: str, second: str) -> str:
    left, right = present[first], present[second]
    if device_of(left) != device_of(right):
        return f"a tensor of its own, on {with_index(device_of(right))} and not on {with_index(device_of(left))}"
    if dtype_of(left) != dtype_of(right):
        return f"a tensor of its own, in {dtype_name(dtype_of(right))}"
    return "a tensor of its own"


def _shared(model: nn.Module, first: str, second: str, present: dict[str, nn.Parameter]) -> bool:
    left, right = present[first], present[second]
    if left is right:
        return True
    if left.is_meta and right.is_meta:
        # Offloaded: the hooks hold the data. A map that keeps one entry for both is what accelerate does.
        values = [_offloaded(model, name) for name in (first, second)]
        return values[0] is not None and values[1] is not None and bool((values[0] == values[1]).all())
    return same_data(left, right)


def _offloaded(model: nn.Module, name: str) -> torch.Tensor | None:
    weights = getattr(offload_hook(model, name), "weights_map", None)
    if weights is None:
        return None
    try:
        tensor: torch.Tensor = weights[name.rpartition(".")[2]]
    except (KeyError, OSError):
        return None
    return tensor


TIED_CHECK: Final = Check(
    "tied",
    lambda exam: check_tied(exam.model, exam.expectations),
    "weights that the configuration ties are one tensor, others are not",
    "Two weights that should be one are two, or the other way round.",
    failure="loader",
    after="values",
)
