"""Models as the built-in target loads them, each test with its own, to plant faults in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest

from pytest_llmdevice import Cell
from pytest_llmdevice.inference.prompts import encode, load_tokenizer
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.oracle.expectations import Expectations, expectations_of
from pytest_llmdevice.oracle.reference import Reference, reference

NEW_TOKENS = 8


@pytest.fixture(scope="session")
def load(checkpoint: Callable[[str], str]) -> Callable[[Cell], Any]:
    """`load(cell)`: a model of the test's own."""
    return lambda cell: BuiltinTarget().load(checkpoint(cell.model), cell)


@pytest.fixture(scope="session")
def loaded(load: Callable[[Cell], Any]) -> Callable[[Cell], Any]:
    """`loaded(cell)`: a model that several tests look at and none changes."""
    return cache(load)


@pytest.fixture(scope="session")
def expectations(checkpoint: Callable[[str], str]) -> Callable[[Any, Cell], Expectations]:
    """`expectations(model, cell)`: what `model` is held to."""
    return lambda model, cell: expectations_of(model, checkpoint(cell.model), cell)


@pytest.fixture(scope="session")
def prompts(checkpoint: Callable[[str], str]) -> list[list[int]]:
    """The prompts of the suite; all families share a tokenizer."""
    return encode(load_tokenizer(checkpoint("llama")))


@pytest.fixture(scope="session")
def expected(checkpoint: Callable[[str], str], prompts: Sequence[Sequence[int]]) -> Callable[[str], Reference]:
    """`expected(family)`: the reference outputs for the prompts of the suite."""

    @cache
    def outputs(family: str) -> Reference:
        return reference(checkpoint(family), prompts, NEW_TOKENS)

    return outputs
