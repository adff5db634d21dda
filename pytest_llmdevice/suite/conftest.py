"""What the tests of the suite share: one examination for each cell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmdevice.checks.generation import token_rows
from pytest_llmdevice.examination import NEW_TOKENS, Examination
from pytest_llmdevice.fixtures import RUN
from pytest_llmdevice.loading.measures import measures_of
from pytest_llmdevice.loading.reference import Reference, reference
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.reported import EVIDENCE, TOKENS, CheckFailed
from pytest_llmdevice.zoo import cache_directory

if TYPE_CHECKING:
    from torch import nn

    from pytest_llmdevice.loading.target import Target

Tokens = list[list[int]]


@pytest.fixture(scope="session")
def llm_reference(llm_checkpoint: Path, llm_prompts: Tokens) -> Reference:
    """What the same model says on the cpu in float32."""
    return reference(str(llm_checkpoint), llm_prompts, NEW_TOKENS, cache_directory() / "references")


@pytest.fixture(scope="session")
def llm_examination(
    request: pytest.FixtureRequest,
    llm_target: Target,
    llm_checkpoint: Path,
    llm_cell: Cell,
    llm_prompts: Tokens,
    llm_reference: Reference,
    llm_model: nn.Module,
) -> Examination:
    """The loaded cell, and what several checks need of it.

    The reference comes before the model: a target may change the classes that both are made of.
    """
    run = request.config.stash.get(RUN, None)
    tolerance = run.tolerance(llm_cell) if run is not None else None
    beside = run.beside(llm_cell) if run is not None else None
    others = run.others(llm_cell) if run is not None else ()
    return Examination(
        llm_target, str(llm_checkpoint), llm_cell, llm_model, llm_prompts, llm_reference, tolerance, beside, others
    )


@pytest.fixture
def check(request: pytest.FixtureRequest, llm_examination: Examination) -> Callable[[str], None]:
    """`check(name)`: make a check, report its result, then fail if it found something or looked at nothing."""

    def make(name: str) -> None:
        __tracebackhide__ = True
        result = llm_examination.check(name)
        request.node.user_properties.extend(_measured(name, llm_examination))
        request.node.stash[EVIDENCE] = dict(result.evidence)
        if name == "generation":
            request.node.stash[TOKENS] = token_rows(llm_examination.generated.first) or []
        request.config.hook.pytest_llm_check(config=request.config, cell=llm_examination.cell, result=result)
        if not result.passed:
            raise CheckFailed(result.message(llm_examination.cell.id), result)

    return make


def _measured(check: str, exam: Examination) -> Iterable[tuple[str, object]]:
    """What the load or the generation took, as properties of the test that is about it: reporters carry them."""
    doing = {"loads": "load", "generation": "generate"}.get(check)
    if doing is None:
        return ()
    measures = measures_of(exam.model) if doing == "load" else exam.generated.measures
    found = {} if measures is None else measures.properties(doing)
    return (found | (exam.generated.speed() if doing == "generate" else {})).items()
