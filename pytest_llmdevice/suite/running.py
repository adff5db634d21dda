"""What must hold of a model while it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmdevice.checks import Result, check_agreement, check_forward, check_generation, generation_tolerance
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.suite.conftest import NEW_TOKENS, Generated

if TYPE_CHECKING:
    from torch import nn

    from pytest_llmdevice.loading.reference import Reference

    Conclude = Callable[[Result], None]
    Tokens = list[list[int]]


@pytest.mark.llm_check("forward")
def test_forward(
    llm_model: nn.Module, llm_cell: Cell, llm_prompts: Tokens, llm_checkpoint: Path, conclude: Conclude
) -> None:
    """A padded batch beside the embedding gives finite logits on the right device, in the right dtype."""
    conclude(check_forward(llm_model, llm_cell, llm_prompts, str(llm_checkpoint)))


@pytest.mark.llm_check("generation")
def test_generation(llm_model: nn.Module, llm_generated: Generated, llm_prompts: Tokens, conclude: Conclude) -> None:
    """Greedy generation succeeds, with as many tokens as were asked for, and twice the same."""
    if llm_generated.error is not None:
        raise llm_generated.error
    conclude(check_generation(llm_generated.first, llm_generated.second, llm_prompts, NEW_TOKENS, llm_model))


@pytest.mark.llm_check("agreement")
def test_agreement(
    llm_model: nn.Module,
    llm_generated: Generated,
    llm_reference: Reference,
    llm_prompts: Tokens,
    llm_tolerance: float,
    llm_cell: Cell,
    conclude: Conclude,
) -> None:
    """Logits and tokens agree with those of the same model on the cpu in float32."""
    own = generation_tolerance(llm_cell)
    rows, alone = llm_generated.first, llm_generated.alone
    conclude(check_agreement(llm_model, llm_reference, llm_prompts, rows, alone, llm_tolerance, own))
