"""What is wrong on a cell, from the exception of a test to the report that says it, across processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

# The class behind `pytest.fail.Exception`, under the only name that a type checker takes for a base class.
from _pytest.outcomes import Failed

from pytest_llmdevice.diagnosis.finding import Finding, Hint
from pytest_llmdevice.diagnosis.folding import folded
from pytest_llmdevice.errors import CARRIED

if TYPE_CHECKING:
    import pytest

    from pytest_llmdevice.checks.result import Result

FINDINGS: Final = "llm_findings"
"""The attribute of a report with the findings, as lists of texts: xdist and reportlog carry it, JUnit XML does not."""

MOST = 20
LONGEST = 400
SHORT = 160


class CheckFailed(Failed):
    """A test fails with a result; shown without a traceback."""

    __module__ = "builtins"  # As pytest's own: reports show the bare name.

    def __init__(self, message: str, result: Result | None = None) -> None:
        super().__init__(message, pytrace=False)
        vars(self)[CARRIED] = result


class LoadFailed(CheckFailed):
    """A cell has no model. pytest raises it again for every test that asks for one; only the first tells all.

    Attributes:
        told: the name of the test that told it; empty before.
    """

    __module__ = "builtins"

    def __init__(self, message: str, result: Result) -> None:
        super().__init__(message, result)
        self.told = ""

    def again(self) -> CheckFailed:
        """The same in one line."""
        first = (self.msg or "").partition("\n")[0]
        return CheckFailed(f"{_cut(first, SHORT)} -- see {self.told}")


def briefly(item: pytest.Item, call: pytest.CallInfo[Any]) -> None:
    """Before a report is made of `call`: have a cell that does not load tell its cause once, and then refer to it."""
    error = call.excinfo.value if call.excinfo is not None else None
    if isinstance(error, LoadFailed):
        if error.told not in {"", item.name}:
            again = error.again().with_traceback(error.__traceback__)
            call.excinfo = type(call.excinfo).from_exception(again)  # type: ignore[union-attr]
        else:
            error.told = item.name


def attach(report: pytest.TestReport, call: pytest.CallInfo[Any]) -> None:
    """Put the findings that `call` failed with, if any, into its report."""
    result: Result | None = getattr(call.excinfo.value, CARRIED, None) if call.excinfo is not None else None
    if report.outcome == "failed" and result is not None:
        vars(report)[FINDINGS] = list(_packed(result))


def _packed(result: Result) -> Iterator[list[str]]:
    findings = result.findings or (Finding("the check", "something to look at", "nothing"),)
    for finding, _ in folded(findings)[:MOST]:
        hint = finding.hint or Hint("", "")
        texts = (finding.where, finding.expected, finding.actual, hint.name, hint.text, hint.source)
        yield [result.check, *(_cut(text, LONGEST) for text in texts)]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def findings_of(report: pytest.TestReport) -> Iterator[tuple[str, Finding]]:
    """The findings in a report, each with its check."""
    for check, where, expected, actual, *hint in getattr(report, FINDINGS, ()):
        yield check, Finding(where, expected, actual, Hint(*hint) if hint[0] else None)
