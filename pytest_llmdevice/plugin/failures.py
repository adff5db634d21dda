"""Carries what is wrong with a cell from the exception of a test to its report, across processes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import pytest

# The classes behind `pytest.fail.Exception` and `pytest.skip.Exception`, under the only names that a type checker takes
# for base classes.
from _pytest.outcomes import Failed, Skipped, XFailed

from pytest_llmdevice.diagnosis.finding import Finding, Hint
from pytest_llmdevice.diagnosis.folding import fold_findings
from pytest_llmdevice.errors import CARRIED
from pytest_llmdevice.results.cleaning import clean
from pytest_llmdevice.text import encodable, harmless

if TYPE_CHECKING:
    from pytest_llmdevice.checks.result import Result
    from pytest_llmdevice.errors import FailureClass

FINDINGS: Final = "llm_findings"
"""The attribute of a report with the findings, as lists of texts: xdist and reportlog carry it, JUnit XML does not."""

DETAILS: Final = "llm_details"
"""The attribute of a report with what else a record has, see `Details`; carried likewise."""

EVIDENCE: Final[pytest.StashKey[dict[str, Any]]] = pytest.StashKey()
"""What the check of an item looked at."""

RESULT: Final[pytest.StashKey[str]] = pytest.StashKey()
"""What the check of an item came to: `"passed"`, `"failed"` or `"hollow"`."""

CALLED: Final[pytest.StashKey[bool]] = pytest.StashKey()
"""Whether the test function of an item was called."""

TOKENS: Final[pytest.StashKey[list[list[int]]]] = pytest.StashKey()
"""What the check of an item had generated."""

MEASURED: Final[pytest.StashKey[dict[str, Any]]] = pytest.StashKey()
"""What the load or the generation took that the check of an item is about, as fields of the record of its cell."""

MOST = 20
LONGEST = 400
SHORT = 160


class CheckFailed(Failed):
    """A test fails with a result; shown without a traceback.

    Attributes:
        failure: what kind of thing went wrong; None where the result says it.
        aborted: whether nothing was looked at, because what it needs is gone.
    """

    __module__ = "builtins"  # As pytest's own: reports show the bare name.

    failure: FailureClass | None = None
    aborted = False

    def __init__(self, message: str, result: Result | None = None, failure: FailureClass | None = None) -> None:
        super().__init__(harmless(message, lines=True), pytrace=False)
        vars(self)[CARRIED] = result
        if failure is not None:
            self.failure = failure


class CellSkipped(Skipped):
    """A test is skipped because its cell does not run here.

    Attributes:
        cause: why, one of the causes of a decision.
    """

    __module__ = "builtins"

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(harmless(f"{cause}: {detail}", lines=True))
        self.cause = cause


class UpstreamToo(XFailed):
    """A check found only what a plain load of the cell has too; pytest reports it as it does an expected failure.

    Attributes:
        summary: whose it is and what it means, in words that are the same for all cells of an architecture.
    """

    __module__ = "builtins"

    def __init__(self, message: str, summary: str, result: Result) -> None:
        super().__init__(harmless(message, lines=True))
        self.summary = summary
        self.__dict__[CARRIED] = result


class DeviceLost(CheckFailed):
    """A test that was not run, because an earlier one left its device unusable for the process."""

    __module__ = "builtins"
    failure = "device-lost"
    aborted = True


class LoadFailed(CheckFailed):
    """A cell has no model. pytest raises it again for every test that asks for one; only the first tells all.

    Attributes:
        summary: the cell and the cause, in a line.
        shown_by: the name of the test whose report has all of it; empty before there is one.
    """

    __module__ = "builtins"

    def __init__(self, summary: str, details: str, result: Result, failure: FailureClass | None = None) -> None:
        super().__init__(f"{summary}{details}", result, failure)
        self.summary = summary
        self.shown_by = ""

    def again(self) -> CheckFailed:
        """The same in one line."""
        result: Result = vars(self)[CARRIED]
        return CheckFailed(f"{_cut(self.summary, SHORT)} -- see {self.shown_by}", result, self.failure)


def briefly(item: pytest.Item, call: pytest.CallInfo[Any]) -> None:
    """Before a report is made of `call`: have a cell that does not load tell its cause once, and then refer to it."""
    error = call.excinfo.value if call.excinfo is not None else None
    if isinstance(error, LoadFailed):
        if error.shown_by not in {"", item.name}:
            again = error.again().with_traceback(error.__traceback__)
            call.excinfo = type(call.excinfo).from_exception(again)  # type: ignore[union-attr]
        else:
            error.shown_by = item.name


def attach(report: pytest.TestReport, call: pytest.CallInfo[Any]) -> None:
    """Put the findings that `call` failed with, if any, into its report."""
    result: Result | None = getattr(call.excinfo.value, CARRIED, None) if call.excinfo is not None else None
    if result is not None and (report.outcome == "failed" or result.outcome == "upstream"):
        vars(report)[FINDINGS] = list(_packed(result))


def detail(
    item: pytest.Item, call: pytest.CallInfo[Any], report: pytest.TestReport, own: object, *, declared: str | None
) -> None:
    """Put into the report of an item of a cell what a record of it needs and no other part of the report has.

    A dictionary, where there is something to say: `failure` (what kind of thing went wrong), `cause` (why the cell does
    not run here), `aborted`, `hollow` and `gave up` (by `pytest.xfail`; true or absent), `upstream` (what a plain
    load does too, in words that are the same for each cell of an architecture), `evidence`, `tokens`,
    `measured`, `result` and `called` (see their keys), `declared` (true where the matrix expects it to fail), and
    `target` where a fixture put another one in the place of `own`.
    """
    details: dict[str, Any] = {} if declared is None else {"declared": True}
    if call.excinfo is not None and isinstance(call.excinfo.value, UpstreamToo):
        details["upstream"] = call.excinfo.value.summary
        if declared is not None:
            # The matrix knows it, and says it in its own words.
            details["reason"] = declared
    elif call.excinfo is not None and isinstance(call.excinfo.value, pytest.xfail.Exception):
        details["gave up"] = True
    if report.outcome == "failed" and call.excinfo is not None:
        details |= _of_failure(call.excinfo.value)
    if call.excinfo is not None and isinstance(call.excinfo.value, CellSkipped):
        details["cause"] = call.excinfo.value.cause
    if report.when == "call":
        details |= {"evidence": item.stash[EVIDENCE]} if EVIDENCE in item.stash else {}
        details |= {"tokens": item.stash[TOKENS]} if TOKENS in item.stash else {}
        details |= {"measured": _finite(item.stash[MEASURED])} if MEASURED in item.stash else {}
        details |= {"result": item.stash[RESULT]} if RESULT in item.stash else {}
        details |= {"called": True} if item.stash.get(CALLED, False) else {}
    target = getattr(item, "funcargs", {}).get("llm_target")
    if target is not None and target is not own:
        kind = target if isinstance(target, (type, ModuleType)) else type(target)
        details["target"] = kind.__name__ if isinstance(kind, ModuleType) else f"{kind.__module__}:{kind.__qualname__}"
    if details:
        # Also what other packages' checks say: in numbers of their own, or in texts that no file can hold.
        vars(report)[DETAILS] = clean(details)


def _finite(measured: dict[str, Any]) -> dict[str, Any]:
    """What was measured: a speed that is no number was not."""
    return {name: value for name, value in measured.items() if not isinstance(value, float) or math.isfinite(value)}


def make_harmless(report: pytest.TestReport, *, colours: bool) -> None:
    """Make all that `report` shows of an exception harmless; the colours that pytest gave it may stay."""
    report.longrepr = _harmless(report.longrepr, colours)


def _harmless(shown: Any, colours: bool) -> Any:  # of `make_harmless`
    if isinstance(shown, str):
        return harmless(shown, lines=True, colours=colours)
    if isinstance(shown, list | tuple):
        return type(shown)([_harmless(inner, colours) for inner in shown])
    if type(shown).__module__.startswith("_pytest."):
        for name, value in vars(shown).items():
            vars(shown)[name] = _harmless(value, colours)
    return shown


def details_of(report: pytest.TestReport) -> dict[str, Any]:
    """What `detail` put into `report`."""
    details: dict[str, Any] = getattr(report, DETAILS, {})
    return details


def _of_failure(error: BaseException) -> dict[str, Any]:
    from pytest_llmdevice.diagnosis.classes import class_of_error, class_of_findings

    result: Result | None = getattr(error, CARRIED, None)
    failure = getattr(error, "failure", None)
    if failure is None:
        found = () if result is None else result.findings or result.upstream
        failure = class_of_error(error) if result is None else class_of_findings(result.check, found)
    details: dict[str, Any] = {"failure": failure}
    if getattr(error, "aborted", False):
        details["aborted"] = True
    if result is not None and result.outcome == "hollow":
        details["hollow"] = True
    return details


def _packed(result: Result) -> Iterator[list[str]]:
    findings = result.findings or result.upstream or (Finding("the check", "something to look at", "nothing"),)
    for finding, _ in fold_findings(findings)[:MOST]:
        hint = finding.hint or Hint("", "")
        texts = (finding.where, finding.expected, finding.actual, hint.name, hint.text, hint.source, finding.kind)
        yield [result.check, *(_cut(encodable(text), LONGEST) for text in texts)]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def findings_of(report: pytest.TestReport) -> Iterator[tuple[str, Finding]]:
    """The findings in a report, each with its check."""
    for check, where, expected, actual, *hint, kind in getattr(report, FINDINGS, ()):
        yield check, Finding(where, expected, actual, Hint(*hint) if hint[0] else None, kind)
