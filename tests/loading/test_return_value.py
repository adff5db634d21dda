"""What a target returned instead of a model, in words."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pytest_llmdevice.loading.return_value import not_a_model


class Tokenizer:
    pass


class TextGenerationPipeline:
    def __init__(self) -> None:
        self.tokenizer = Tokenizer()
        self.model = nn.Linear(1, 1)


class Wrapper:
    def __init__(self) -> None:
        self.net = nn.Linear(1, 1)


def generator() -> Iterator[nn.Module]:
    yield nn.Linear(1, 1)


SHAPES: dict[str, tuple[object, str]] = {
    "nothing": (None, "None, not a torch.nn.Module: is its `return` missing?"),
    "with a tokenizer": (
        (nn.Linear(1, 1), Tokenizer()),
        "a tuple of Linear and Tokenizer, not a torch.nn.Module: return the model alone",
    ),
    "a list": ([None, nn.Linear(1, 1)], "a list of None and Linear, not a torch.nn.Module: return the model alone"),
    "many": (("a", "b", "c", "d"), "a tuple of str, str, str and 1 more, not a torch.nn.Module"),
    "an empty tuple": ((), "a tuple of nothing, not a torch.nn.Module"),
    "a state dict": (
        {"w": torch.ones(1), "b": torch.ones(1)},
        "a dict of 2 tensors, not a torch.nn.Module: a state dict is not a model",
    ),
    "a dict": ({"model": nn.Linear(1, 1)}, "a dict with a Linear under 'model', not a torch.nn.Module: return the mod"),
    "an empty dict": ({}, "a dict, not a torch.nn.Module"),
    "a pipeline": (
        TextGenerationPipeline(),
        "a TextGenerationPipeline, not a torch.nn.Module: return pipeline.model",
    ),
    "a wrapper": (Wrapper(), "a Wrapper, not a torch.nn.Module: return its attribute net"),
    "any object": (SimpleNamespace(a=1), "a SimpleNamespace, not a torch.nn.Module"),
    "a class": (nn.Linear, "the class Linear, not a torch.nn.Module: return an instance"),
    "a generator": (generator(), "a generator, not a torch.nn.Module: there is a `yield` in load"),
    "a function": (generator, "the function generator, not a torch.nn.Module: return what it returns"),
    "a path": (Path("llama"), "a path ('llama'), not a torch.nn.Module: return what from_pretrained makes of it"),
    "a long text": ("x" * 200, f"a str ('{'x' * 75}...'), not a torch.nn.Module: return what from_pretrained makes"),
    "a number": (3, "an int, not a torch.nn.Module"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_each_known_shape_is_named_with_what_to_return(shape: str) -> None:
    returned, words = SHAPES[shape]
    assert not_a_model(returned).startswith(words)


def test_a_coroutine_is_named_and_closed() -> None:
    async def load() -> nn.Module:
        return nn.Linear(1, 1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not_a_model(load()).startswith("a coroutine, not a torch.nn.Module: load is called without await")
