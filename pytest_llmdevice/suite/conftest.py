"""Defines the fixtures that the tests of the suite share: one examination for each cell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import pytest

from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.examination import NEW_TOKENS, Examination
from pytest_llmdevice.checks.examine import expected_of
from pytest_llmdevice.checks.generation import token_rows
from pytest_llmdevice.errors import first_line
from pytest_llmdevice.loading.load import Loaded
from pytest_llmdevice.loading.stored_packed import stored_method
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.ranks import of_rank
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.monitoring.ranks import rank_here
from pytest_llmdevice.oracle.reference import Reference, reference
from pytest_llmdevice.plugin.failures import EVIDENCE, MEASURED, RESULT, TOKENS, CellSkipped, CheckFailed, UpstreamToo
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
    # A project may give `llm_model` another model than its target's: nothing is known of the load of that one.
    own = "llm_loaded" in request.fixturenames
    loaded: Loaded = request.getfixturevalue("llm_loaded") if own else Loaded(llm_cell, llm_model)
    run = request.config.stash.get(RUN, None)
    tolerance = run.tolerance(llm_cell) if run is not None else None
    beside = run.beside(llm_cell) if run is not None else None
    others = run.others(llm_cell) if run is not None else ()
    others = tuple(of_rank(other, rank_here()) for other in others)
    dense = run.dense(llm_cell) if run is not None else ()
    imported = run.resolved.changes if run is not None and run.target is llm_target else ()
    try:
        exam = expected_of(
            llm_target, str(llm_checkpoint), loaded, llm_prompts, llm_reference, cache_directory() / "references"
        )
    except ImportError as error:
        if not stored_method(str(llm_checkpoint)):
            raise
        # The target reads files that transformers cannot read here.
        raise CellSkipped("unsupported", f"no plain load to hold it against: {first_line(error)}") from error
    return Examination(
        llm_target,
        exam.checkpoint,
        llm_cell,
        loaded,
        exam.prompts,
        exam.reference,
        exam.tolerance if tolerance is None else tolerance,
        beside,
        others,
        imported,
        dense=dense,
        random_state=None if run is None else run.random_state(llm_cell),
        source=str(llm_checkpoint),
    )


@pytest.fixture
def check(request: pytest.FixtureRequest, llm_examination: Examination) -> Callable[[str], None]:
    """`check(name)`: make a check, report its result, then fail if it found something or looked at nothing."""

    def make(name: str) -> None:
        __tracebackhide__ = True
        result = llm_examination.check(name)
        request.node.user_properties.extend(_measured(name, llm_examination))
        request.node.stash[RESULT] = result.outcome
        request.node.stash[EVIDENCE] = dict(result.evidence)
        request.node.stash[MEASURED] = _record_fields(name, llm_examination)
        if name == "generation":
            request.node.stash[TOKENS] = token_rows(llm_examination.generated.first) or []
        request.config.hook.pytest_llm_check(config=request.config, cell=llm_examination.cell, result=result)
        if result.outcome == "upstream":
            summary = f"{result.source}, {name}: {current().of(Check)[name].meaning}"
            raise UpstreamToo(result.message(llm_examination.cell.id), summary, result)
        if result.outcome == "inapplicable":
            raise CellSkipped("does not apply", result.inapplicable)
        if not result.passed:
            raise CheckFailed(result.message(llm_examination.cell.id), result)

    return make


def _measured(check: str, exam: Examination) -> Iterable[tuple[str, object]]:
    """What the load or the generation took, as properties of the test that is about it: reporters carry them."""
    doing = _DOING.get(check)
    if doing is None:
        return ()
    measures = exam.loaded.measures if doing == "load" else exam.generated.measures
    properties = {} if measures is None else measures.properties(doing)
    return (properties | (exam.generated.speed() if doing == "generate" else {})).items()


_DOING: Final = {"loads": "load", "generation": "generate"}
"""What the checks are about whose tests carry measures."""


def _record_fields(check: str, exam: Examination) -> dict[str, object]:
    """The same as fields of the record of a cell, see `results.records.CellDone`."""
    doing = _DOING.get(check)
    if doing is None:
        return {}
    measures = exam.loaded.measures if doing == "load" else exam.generated.measures
    if measures is None:
        return {}
    memory = [asdict(place) for place in (measures.host, *measures.cards)]
    if doing == "load":
        return {"load_seconds": round(measures.seconds, 4), "load_memory": memory, "devices": measures.summary}
    speed = exam.generated.speed()
    return {
        "first_token_seconds": speed.get("llm.generate_first_token_seconds"),
        "tokens_per_second": speed.get("llm.generate_tokens_per_second"),
        "generate_memory": memory,
    }
