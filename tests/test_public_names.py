"""The public names: what the package offers, and what type checkers are told of it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pytest_llmdevice

STUB = Path(pytest_llmdevice.__file__).with_suffix(".pyi")

KNOWN_FOR_LONG = [
    "BuiltinTarget",
    "Cell",
    "ConfigurationError",
    "Finding",
    "Hint",
    "Inventory",
    "LLMDeviceError",
    "Result",
    "Simulation",
    "SimulationError",
    "Target",
    "assert_agrees",
    "assert_dtypes",
    "assert_eval_mode",
    "assert_forward",
    "assert_generates",
    "assert_no_meta",
    "assert_placement",
    "assert_quantized",
    "assert_tied",
    "examine",
    "simulate",
]


def test_the_stub_has_each_name_from_the_module_that_it_is_imported_from() -> None:
    told = {
        alias.name: node.module
        for node in ast.parse(STUB.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    modules = vars(pytest_llmdevice)["_MODULES"]
    assert told == modules


@pytest.mark.parametrize("name", KNOWN_FOR_LONG)
def test_a_name_that_users_know_stays(name: str) -> None:
    assert name in dir(pytest_llmdevice)
    assert callable(getattr(pytest_llmdevice, name))


@pytest.mark.parametrize("name", sorted(vars(pytest_llmdevice)["_MODULES"]))
def test_every_name_can_be_imported(name: str) -> None:
    assert getattr(pytest_llmdevice, name).__name__ == name
