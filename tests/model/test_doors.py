"""Tensors of classes that refuse what is asked of them, and what can be read of them all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from pytest_llmdevice.model.doors import (
    decides,
    device_of,
    dtype_of,
    few_bits,
    held_bytes,
    parts_of,
    plain_values,
    same_data,
    storage_dtype,
)
from pytest_llmdevice.model.weights import is_packed
from pytest_llmdevice.monitoring.model_state import unchanged_model
from pytest_llmdevice.monitoring.resources import summarize_tensors

WEIGHT = torch.arange(8.0).view(2, 4)


class Refusing(torch.Tensor):
    """A weight in bytes of which only `detach` works; it has no storage."""

    held: Any

    @staticmethod
    def __new__(cls: Any, data: torch.Tensor) -> Any:
        make: Any = torch.Tensor._make_wrapper_subclass
        return make(cls, data.size(), data.stride(), dtype=torch.float32, device=data.device)

    def __init__(self, data: torch.Tensor) -> None:
        self.held = data

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        if func in {torch.ops.aten.detach.default, torch.ops.aten.alias.default}:
            return cls(args[0].held)
        raise NotImplementedError(str(func))


class Unpacking(Refusing):
    """The same with a way to its numbers."""

    def dequantize(self) -> torch.Tensor:
        values: torch.Tensor = self.held.float()
        return values


class WrongShape(Refusing):
    """Its way to the numbers gives others."""

    def dequantize(self) -> torch.Tensor:
        values: torch.Tensor = self.held.float().flatten()
        return values


class Raising(Refusing):
    """It refuses that, too."""

    def dequantize(self) -> torch.Tensor:
        raise RuntimeError("no kernel")


class Lying(Refusing):
    """It calls itself float64, of another shape of its parts."""

    dtype: ClassVar[Any] = torch.float64  # type: ignore[misc]


class Distributed(Refusing):
    """A shard, which can be collected."""

    def full_tensor(self) -> torch.Tensor:
        values: torch.Tensor = self.held
        return values


CLASSES = [Refusing, Unpacking, WrongShape, Raising, Lying, Distributed]


@pytest.mark.parametrize("kind", CLASSES)
def test_a_tensor_that_refuses_everything_has_a_dtype_a_place_and_parts(kind: Callable[..., torch.Tensor]) -> None:
    tensor = kind(WEIGHT.to(torch.int8))
    assert decides(tensor)
    assert dtype_of(tensor) == torch.float32
    assert device_of(tensor) == torch.device("cpu")
    assert storage_dtype(tensor) == torch.int8
    assert held_bytes(tensor) == 8
    assert list(parts_of(tensor)) == ["held"]
    assert is_packed(tensor)
    assert same_data(tensor, tensor)
    assert not same_data(tensor, kind(WEIGHT.to(torch.int8)))
    assert not same_data(tensor, WEIGHT)


@pytest.mark.parametrize(
    ("kind", "readable"),
    [(Refusing, False), (Unpacking, True), (WrongShape, False), (Raising, False), (Lying, False), (Distributed, True)],
)
def test_the_numbers_are_what_the_class_gives_and_none_where_it_gives_none(
    kind: Callable[..., torch.Tensor], readable: bool
) -> None:
    values = plain_values(kind(WEIGHT.to(torch.int8)))
    assert (values is not None) == readable
    if values is not None:
        assert torch.equal(values.float(), WEIGHT)
        assert not decides(values)


def test_a_tensor_of_others_that_are_dense_is_not_packed() -> None:
    assert not is_packed(Distributed(WEIGHT))


@pytest.mark.parametrize("kind", CLASSES)
def test_a_model_of_such_tensors_is_watched_and_its_memory_counted(kind: Callable[..., torch.Tensor]) -> None:
    model = nn.Linear(128, 16, bias=False)
    model.weight = nn.Parameter(kind(torch.ones(16, 128, dtype=torch.int8)), requires_grad=False)
    with unchanged_model(model) as changes:
        pass
    assert changes == []
    assert summarize_tensors(model) == "cpu: 1 float32 tensors, 2.0 KiB"


def test_ordinary_tensors_are_read_as_they_are() -> None:
    parameter = nn.Parameter(WEIGHT)
    assert not decides(parameter)
    assert parts_of(parameter) == {}
    values = plain_values(parameter)
    assert values is not None
    assert values.data_ptr() == parameter.data_ptr()
    assert not values.requires_grad
    assert same_data(parameter, WEIGHT)
    assert held_bytes(WEIGHT) == 32


@pytest.mark.parametrize(
    ("dtype", "few"),
    [
        (torch.float32, False),
        (torch.bfloat16, False),
        (torch.bool, False),
        (torch.int8, True),
        (torch.int32, True),
        (torch.float8_e4m3fn, True),
    ],
)
def test_few_bits_are_integers_and_floats_of_a_byte(dtype: torch.dtype, few: bool) -> None:
    assert few_bits(dtype) == few
