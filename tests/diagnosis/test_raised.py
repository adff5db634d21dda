"""Exceptions as findings: what their texts mean, and in which module they were raised."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pytest_llmdevice import Hint
from pytest_llmdevice.diagnosis import finding_from_exception
from pytest_llmdevice.diagnosis.errors import hint_of
from pytest_llmdevice.diagnosis.failure import excerpt, failing_module
from pytest_llmdevice.diagnosis.hints import raised as hints

TEXTS: dict[Hint, list[str]] = {
    hints.DEVICES: [
        "Expected all tensors to be on the same device, but got mat1 is on cpu, different from others on cuda:7",
        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!",
        "Input, output and indices must be on the current device",
        "indices should be either on cpu or on the same device as the indexed tensor (cuda:0)",
        "expected self and mask to be on the same device, but got mask on cpu and self on cuda:0",
        "Expected query, key, and value to have the same device type, but got query.device: cuda:0 key.device: cpu",
        "Tensor on device cuda:1 is not on the expected device cuda:0!",
        "Placeholder storage has not been allocated on MPS device!",
        "Pointer argument (at 0) cannot be accessed from Triton (cpu tensor?)",
        "Expected a cuda device, but got: cpu",
        "Expected a 'cuda' device type for generator but found 'cpu'",
    ],
    hints.DTYPES: [
        "expected m1 and m2 to have the same dtype, but got: float != c10::BFloat16",
        "mat1 and mat2 must have the same dtype, but got Float and BFloat16",
        "self and mat2 must have the same dtype, but got Half and Byte",
        "expected scalar type Half but found Float",
        "Input type (float) and bias type (c10::BFloat16) should be the same",
        "index_copy_(): self and source expected to have the same dtype, but got (self) Half and (source) Float",
        "Index put requires the source and destination dtypes match, got Half for the destination",
        "Expected query, key, and value to have the same dtype, but got query.dtype: float key.dtype: c10::Half",
        "Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, Int",
    ],
    hints.META: [
        "Cannot copy out of meta tensor; no data!",
        "Tensor.item() cannot be called on meta tensors",
        "weight is on the meta device, we need a `value` to put in on 0.",
        "Tensor on device meta is not on the expected device cuda:0!",
        "Expected all tensors to be on the same device, but found at least two devices, meta and cpu!",
    ],
    hints.MOVED: [
        "You can't move a model that has some modules offloaded to cpu or disk.",
        "`.to` is not supported for `4-bit` or `8-bit` bitsandbytes models. Please use the model as it is",
        "You cannot cast a bitsandbytes model in a new `dtype`. Make sure to load the model using `from_pretrained`",
    ],
    hints.NO_SUCH_DEVICE: [
        "CUDA error: invalid device ordinal",
        "Torch not compiled with CUDA enabled",
        "Found no NVIDIA driver on your system.",
        "Expected one of cpu, cuda, ipu, xpu, mkldnn device type at start of device string: auto",
        "Invalid device string: 'cuda:x'",
    ],
    hints.FLOAT64: ["Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."],
    hints.CAPABILITY: [
        "\"addmm_impl_cpu_\" not implemented for 'Half'",
        "BFloat16 is not supported on MPS",
        "The blockwise of 64 is not supported",
    ],
    hints.MEMORY: ["CUDA out of memory. Tried to allocate 20.00 MiB."],
}


@pytest.mark.parametrize(("hint", "text"), [(hint, text) for hint, texts in TEXTS.items() for text in texts])
def test_what_libraries_say_has_a_hint(hint: Hint, text: str) -> None:
    assert hint_of(RuntimeError(text)) == hint


@pytest.mark.parametrize(
    "text",
    [
        "no kernel",
        "the size of tensor a must match",
        "",
        "weights not found in ./model",
        "Invalid device string: 'mine'",
    ],
)
def test_other_texts_have_none(text: str) -> None:
    assert hint_of(RuntimeError(text)) is None


def test_the_cause_of_an_exception_counts_too() -> None:
    error = ValueError("the model did not run")
    error.__cause__ = RuntimeError("expected scalar type Half but found Float")
    assert hint_of(error) == hints.DTYPES


class Inner(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return torch.nn.functional.linear(x, torch.zeros(3, 3, dtype=torch.bfloat16))


def caught(model: nn.Module) -> RuntimeError:
    with pytest.raises(RuntimeError) as info:
        model(torch.zeros(1, 3))
    return info.value


def test_the_innermost_module_is_named() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Identity(), Inner()))
    error = caught(model)
    assert failing_module(error, model) == "1.1"
    finding = finding_from_exception(error, model, doing="generation")
    assert finding.where == "generation, in 1.1"
    assert finding.hint == hints.DTYPES
    assert finding.actual.startswith("RuntimeError: ")
    assert "in forward" in excerpt(error)


def test_the_model_itself_may_be_the_place() -> None:
    model = Inner()
    assert finding_from_exception(caught(model), model, doing="forward").where == "forward, in the model itself"


def test_what_passed_through_no_module_is_named_by_what_was_done() -> None:
    assert finding_from_exception(ValueError("no"), nn.Linear(1, 1), doing="generation").where == "generation"
    assert finding_from_exception(ValueError("no"), doing="loading").where == "loading"
