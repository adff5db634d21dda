"""Makes one test for each check in the registry, in the order in which a cell is looked at.

All tests are in one file: from several files, pytest's progress would name a file at each turn of each cell.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_llmdevice.checks.check import Check, needs_cards
from pytest_llmdevice.checks.examination import Examination
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.plugin.failures import CellSkipped

# A project may turn warnings into errors; what the libraries under test deprecate is not its affair here.
pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")


def _test_of(subject: Check) -> Callable[..., None]:
    """The test that makes the check `subject` on a cell."""

    def test(llm_examination: Examination, check: Callable[[str], None]) -> None:
        if needs_cards(subject) and llm_examination.beside is None:
            raise CellSkipped("not requested", "--llm-simulate shows simulated cards to a cell of the cpu")
        check(subject.name)

    test.__name__ = test.__qualname__ = f"test_{subject.name}"
    test.__doc__ = f"Of every cell: {subject.question}."
    return pytest.mark.llm_check(subject.name)(test)


globals().update({f"test_{subject.name}": _test_of(subject) for subject in current().of(Check).values()})
