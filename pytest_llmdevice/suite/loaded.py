"""What must hold of a model that was just loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pytest_llmdevice.checks import (
    Result,
    check_dtypes,
    check_meta,
    check_mode,
    check_placement,
    check_quantization,
    check_tied,
)
from pytest_llmdevice.matrix.cell import Cell

if TYPE_CHECKING:
    from torch import nn

    from pytest_llmdevice.loading.plan import Plan

    Conclude = Callable[[Result], None]


@pytest.mark.llm_check("loads")
def test_loads(llm_model: nn.Module, conclude: Conclude) -> None:
    """The target loads the cell, and the model has parameters."""
    conclude(Result("loads", evidence={"parameters": sum(1 for _ in llm_model.parameters())}))


@pytest.mark.llm_check("meta")
def test_no_stray_meta_tensor(llm_model: nn.Module, conclude: Conclude) -> None:
    """No tensor was left on meta without a hook that brings it."""
    conclude(check_meta(llm_model))


@pytest.mark.llm_check("placement")
def test_placement(llm_model: nn.Module, llm_plan: Plan, llm_cell: Cell, conclude: Conclude) -> None:
    """Every parameter and buffer is on the device that was asked for."""
    conclude(check_placement(llm_model, llm_plan, llm_cell))


@pytest.mark.llm_check("dtypes")
def test_dtypes(llm_model: nn.Module, llm_plan: Plan, llm_cell: Cell, conclude: Conclude) -> None:
    """Every parameter and buffer is in the dtype that was asked for."""
    conclude(check_dtypes(llm_model, llm_plan, llm_cell))


@pytest.mark.llm_check("tied")
def test_tied_weights(llm_model: nn.Module, llm_plan: Plan, conclude: Conclude) -> None:
    """Weights that the configuration ties are one tensor, others are not."""
    conclude(check_tied(llm_model, llm_plan))


@pytest.mark.llm_check("quantization")
def test_quantization(llm_model: nn.Module, llm_plan: Plan, llm_cell: Cell, conclude: Conclude) -> None:
    """Every linear and expert weight is quantized as was asked for, and nothing else is."""
    conclude(check_quantization(llm_model, llm_plan, llm_cell))


@pytest.mark.llm_check("mode")
def test_eval_mode(llm_model: nn.Module, conclude: Conclude) -> None:
    """The model is ready for inference."""
    conclude(check_mode(llm_model))
