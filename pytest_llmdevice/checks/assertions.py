"""Provides the `assert_*` helpers for users' own tests: each makes one check and fails with a table of findings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.checks.agreement import check_agreement
from pytest_llmdevice.checks.dtypes import check_dtypes
from pytest_llmdevice.checks.generation import check_generation
from pytest_llmdevice.checks.inputs import check_inputs
from pytest_llmdevice.checks.meta import check_meta
from pytest_llmdevice.checks.placement import check_placement
from pytest_llmdevice.checks.quantization import check_quantization
from pytest_llmdevice.checks.running import check_forward, check_mode
from pytest_llmdevice.checks.tied import check_tied
from pytest_llmdevice.checks.tolerance import generation_tolerance
from pytest_llmdevice.checks.tolerance import tolerance as tolerance_of
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.oracle.expectations import expectations_of

if TYPE_CHECKING:
    from torch import nn

    from pytest_llmdevice.loading.target import Target

Tokens = Sequence[Sequence[int]]


def assert_no_meta(model: nn.Module) -> None:
    """No parameter or buffer is on meta, unless an accelerate hook brings it. Raises AssertionError."""
    __tracebackhide__ = True
    check_meta(model).require()


def assert_placement(model: nn.Module, checkpoint: str | Path, cell: Cell) -> None:
    """Every parameter and buffer is on the device that `cell` asks for. Raises AssertionError."""
    __tracebackhide__ = True
    check_placement(model, expectations_of(model, str(checkpoint), cell), cell).require(cell.id)


def assert_dtypes(model: nn.Module, checkpoint: str | Path, cell: Cell) -> None:
    """Every dense parameter and buffer has the dtype that `cell` asks for. Raises AssertionError."""
    __tracebackhide__ = True
    check_dtypes(model, expectations_of(model, str(checkpoint), cell), cell, str(checkpoint)).require(cell.id)


def assert_tied(model: nn.Module, checkpoint: str | Path, cell: Cell) -> None:
    """Weights are tied, or not, as the checkpoint's configuration says. Raises AssertionError."""
    __tracebackhide__ = True
    check_tied(model, expectations_of(model, str(checkpoint), cell)).require(cell.id)


def assert_quantized(model: nn.Module, checkpoint: str | Path, cell: Cell) -> None:
    """Weights are packed, or dense, as `cell` asks, experts included. Raises AssertionError."""
    __tracebackhide__ = True
    check_quantization(model, expectations_of(model, str(checkpoint), cell), cell).require(cell.id)


def assert_eval_mode(model: nn.Module) -> None:
    """No module is in training mode. Raises AssertionError."""
    __tracebackhide__ = True
    check_mode(model).require()


def assert_forward(model: nn.Module, checkpoint: str | Path, cell: Cell, prompts: Tokens) -> None:
    """A padded batch gives finite logits of the right dtype on the right device. Raises AssertionError."""
    __tracebackhide__ = True
    check_forward(model, cell, prompts, str(checkpoint)).require(cell.id)


def assert_generates(target: Target, model: Any, prompts: Tokens, max_new_tokens: int = 8) -> list[list[int]]:
    """The target generates greedily, twice the same, as many tokens as asked, from inputs that are right.

    Returns the tokens.

    A target without `generate` is run with the built-in one. Raises AssertionError.
    """
    __tracebackhide__ = True
    from pytest_llmdevice.inference.generation_run import generate_traced

    generated = generate_traced(target, model, prompts, max_new_tokens)
    check_generation(generated, prompts, max_new_tokens, model).require()
    check_inputs(generated, prompts, model).require()
    return [list(map(int, row)) for row in generated.first]


def assert_agrees(
    target: Target,
    model: Any,
    checkpoint: str | Path,
    cell: Cell,
    prompts: Tokens,
    max_new_tokens: int = 8,
    tolerance: float | None = None,
) -> None:
    """Logits and generated tokens agree with the cpu/float32/none cell. Raises AssertionError."""
    __tracebackhide__ = True
    from pytest_llmdevice.inference.generation import generate_one_by_one, generate_with
    from pytest_llmdevice.oracle.reference import reference

    expected = reference(str(checkpoint), prompts, max_new_tokens)
    generated = generate_with(target, model, prompts, max_new_tokens)
    alone = generate_one_by_one(target, model, prompts, max_new_tokens)
    limit = tolerance_of(cell) if tolerance is None else tolerance
    result = check_agreement(model, expected, prompts, generated, alone, limit, generation_tolerance(cell))
    result.require(cell.id)
