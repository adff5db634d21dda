"""What the tests of the suite share: one examination for each cell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from pytest_llmdevice.checks.examination import NEW_TOKENS, Examination
from pytest_llmdevice.checks.generation import token_rows
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.monitoring.resources import load_measures
from pytest_llmdevice.oracle.reference import Reference, reference
from pytest_llmdevice.plugin.failures import EVIDENCE, TOKENS, CheckFailed
from pytest_llmdevice.plugin.fixtures import RUN
from pytest_llmdevice.zoo import cache_directory

if TYPE_CHECKING:
    from torch import nn

    from pytest_llmdevice.loading.target import Target

Tokens = list[list[int]]


@pytest.fixture(scope="session")
def llm_reference(request: pytest.FixtureRequest, llm_checkpoint: Path) -> Callable[[], Reference]:
    """What the same model says on the cpu in float32.

    Made before the model is loaded: a target may change the classes that both are made of. What cannot be made is
    raised when it is asked for: of a broken checkpoint, the load says what is wrong.
    """
    try:
        prompts: Tokens = request.getfixturevalue("llm_prompts")
        found = reference(str(llm_checkpoint), prompts, NEW_TOKENS, cache_directory() / "references")
    except (Exception, pytest.fail.Exception, pytest.skip.Exception) as error:  # noqa: BLE001  # raised below
        return partial(_raise, error)
    return lambda: found


def _raise(error: BaseException) -> NoReturn:
    raise error


@pytest.fixture(scope="session")
def llm_examination(
    request: pytest.FixtureRequest,
    llm_target: Target,
    llm_checkpoint: Path,
    llm_cell: Cell,
    llm_reference: Callable[[], Reference],
    llm_model: nn.Module,
    llm_prompts: Tokens,
) -> Examination:
    """The loaded cell, and what several checks need of it."""
    run = request.config.stash.get(RUN, None)
    tolerance = run.tolerance(llm_cell) if run is not None else None
    beside = run.beside(llm_cell) if run is not None else None
    others = run.others(llm_cell) if run is not None else ()
    return Examination(
        llm_target, str(llm_checkpoint), llm_cell, llm_model, llm_prompts, llm_reference(), tolerance, beside, others
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
    measures = load_measures(exam.model) if doing == "load" else exam.generated.measures
    found = {} if measures is None else measures.properties(doing)
    return (found | (exam.generated.speed() if doing == "generate" else {})).items()
