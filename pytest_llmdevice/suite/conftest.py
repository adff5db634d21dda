"""What the tests of the suite share: the plan, the reference outputs, and what the target generated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmdevice.checks import Result, tolerance
from pytest_llmdevice.fixtures import RUN
from pytest_llmdevice.loading.generation import generate_one_by_one, generate_with
from pytest_llmdevice.loading.plan import Plan, make_plan
from pytest_llmdevice.loading.reference import Reference, reference
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.zoo import cache_directory

if TYPE_CHECKING:
    from torch import nn

    from pytest_llmdevice.loading.target import Target

NEW_TOKENS = 8

Tokens = list[list[int]]


@pytest.fixture(scope="session")
def llm_plan(llm_model: nn.Module, llm_checkpoint: Path, llm_cell: Cell) -> Plan:
    """Where every tensor of the model belongs, and in which dtype."""
    return make_plan(llm_model, str(llm_checkpoint), llm_cell)


@pytest.fixture(scope="session")
def llm_reference(llm_checkpoint: Path, llm_prompts: Tokens) -> Reference:
    """What the same model says on the cpu in float32."""
    return reference(str(llm_checkpoint), llm_prompts, NEW_TOKENS, cache_directory() / "references")


@dataclass(frozen=True)
class Generated:
    """What the target's `generate` returned for the batch, two times, and for each prompt alone; or its error."""

    first: Any = None
    second: Any = None
    alone: Any = None
    error: Exception | None = None


@pytest.fixture(scope="session")
def llm_generated(llm_target: Target, llm_model: nn.Module, llm_prompts: Tokens) -> Generated:
    """What the target generates for the prompts, two times as a batch and one by one."""
    try:
        return Generated(
            generate_with(llm_target, llm_model, llm_prompts, NEW_TOKENS),
            generate_with(llm_target, llm_model, llm_prompts, NEW_TOKENS),
            generate_one_by_one(llm_target, llm_model, llm_prompts, NEW_TOKENS),
        )
    except Exception as error:  # noqa: BLE001  # the generation test raises it; the others do without
        return Generated(error=error)


@pytest.fixture(scope="session")
def llm_tolerance(request: pytest.FixtureRequest, llm_cell: Cell) -> float:
    """The largest relative error of the logits: what the matrix says, else by dtype and quantization."""
    run = request.config.stash.get(RUN, None)
    given = run.tolerance(llm_cell) if run is not None else None
    return tolerance(llm_cell) if given is None else given


@pytest.fixture
def conclude(request: pytest.FixtureRequest, llm_cell: Cell) -> Callable[[Result], None]:
    """Report the result of a check, then fail if it found something or looked at nothing."""

    def report(result: Result) -> None:
        __tracebackhide__ = True
        request.config.hook.pytest_llm_check(config=request.config, cell=llm_cell, result=result)
        if not result.passed:
            pytest.fail(result.message(llm_cell.id), pytrace=False)

    return report
