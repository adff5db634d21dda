"""The module in what a target returned, whatever holds it."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from pytest_llmdevice.model.inside import modules_in, only_model


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))


class Slots:
    __slots__ = ("network", "never_set")

    def __init__(self, network: nn.Module) -> None:
        self.network = network


class Lazy:
    """Loads something when its property is asked."""

    def __init__(self) -> None:
        self._inner = model()

    @property
    def model(self) -> nn.Module:
        raise AssertionError("a property was asked")


class Private:
    """Keeps what pydantic calls private attributes."""

    def __init__(self, network: nn.Module) -> None:
        object.__setattr__(self, "__pydantic_private__", {"_model": network})


class Forwards:
    """Forwards what it has not to the module in it, as nnsight's objects do."""

    def __init__(self, network: nn.Module) -> None:
        self._module = network

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_module"), name)


@dataclass
class Pipeline:
    model: nn.Module
    tokenizer: object = None


def holding(inner: nn.Module) -> dict[str, tuple[object, str]]:
    return {
        "a pipeline": (Pipeline(inner), ".model"),
        "a pipeline in an interface": (SimpleNamespace(pipeline=Pipeline(inner)), ".pipeline.model"),
        "a tuple with a tokenizer": ((inner, object()), "[0]"),
        "a dictionary": ({"net": inner, "size": 3}, "['net']"),
        "slots": (Slots(inner), ".network"),
        "private attributes of pydantic": (Private(inner), "._model"),
        "one that forwards": (Forwards(inner), "._module"),
        "the model and a layer of it": (SimpleNamespace(net=inner, head=inner[1]), ".net"),  # type: ignore[index]
        "the model under two names": (SimpleNamespace(net=inner, same=inner), ".net"),
        "a private one beside a public one": (SimpleNamespace(net=inner, _draft=model()), ".net"),
        "another one beside that called model": (SimpleNamespace(draft=model(), model=inner), ".model"),
        "items of one called model": ({"draft": model(), "model": inner}, "['model']"),
        "one beside a helper without weights": (SimpleNamespace(a=nn.ReLU(), b=inner), ".b"),
        "itself in itself": (_circular(inner), ".net"),
    }


def _circular(inner: nn.Module) -> SimpleNamespace:
    circle = SimpleNamespace(net=inner)
    circle.me = circle
    return circle


@pytest.mark.parametrize("name", holding(model()))
def test_the_model_is_found(name: str) -> None:
    inner = model()
    holder, way = holding(inner)[name]
    found = modules_in(holder)
    assert only_model(found) == way
    assert found[way] is inner


@pytest.mark.parametrize(
    "holder",
    [
        SimpleNamespace(a=SimpleNamespace(b=SimpleNamespace(c=model()))),
        SimpleNamespace(),
        (),
        "a text",
        None,
        {"weight": 3},
        type("Class", (), {"model": model()}),
        SimpleNamespace(kind=nn.Linear),
    ],
    ids=["three levels deep", "empty", "no items", "text", "none", "numbers", "a class", "a class of modules"],
)
def test_there_is_none(holder: object) -> None:
    assert only_model(modules_in(holder)) == ""


def test_of_two_that_could_be_meant_none_is_taken() -> None:
    found = modules_in(SimpleNamespace(large=model(), small=model()))
    assert list(found) == [".large", ".small"]
    assert only_model(found) == ""


def test_properties_are_not_asked() -> None:
    assert only_model(modules_in(Lazy())) == "._inner"
