"""Targets that make masks and positions themselves are right where they are, with windows and without."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from checks.unusual import Target, in_chunks, padded_on_the_right

from pytest_llmdevice import Cell, examine, zoo
from pytest_llmdevice.zoo import cache_directory

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")


def wrong(function: Any, family: str) -> set[str]:
    """The checks that find something."""
    cell = Cell(family, "cpu", "float32")
    results = examine(Target(function), zoo.checkpoint(family), cell, folder=cache_directory() / "references")
    return {result.check for result in results if not result.passed}


@pytest.mark.parametrize("family", ["mistral", "gemma3", "llama"])
def test_a_prompt_that_is_read_in_chunks_is_right(family: str) -> None:
    assert wrong(in_chunks, family) == set()


@pytest.mark.parametrize("family", ["mistral", "gemma3"])
def test_a_chunk_whose_tokens_share_a_window_is_found(family: str) -> None:
    assert wrong(partial(in_chunks, window_of_a_chunk=True), family)


@pytest.mark.parametrize("family", ["llama", "opt", "gemma3"])
def test_positions_may_be_anything_over_padding_on_the_right(family: str) -> None:
    assert wrong(padded_on_the_right, family) == set()
