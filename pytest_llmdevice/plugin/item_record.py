"""Adds up what the reports of one test say: its setup, its call and its teardown make one record of a check.

pytest takes a test that raised nothing for one that passed, whoever ran it. Here it has passed only if it was called,
and a check of the suite only if it also left a result that is good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.matrix.vocabulary import checks
from pytest_llmdevice.plugin.failures import CellSkipped, details_of, findings_of
from pytest_llmdevice.results.records import Check, RecordedFinding
from pytest_llmdevice.results.vocabulary import CheckOutcome
from pytest_llmdevice.text import encodable

if TYPE_CHECKING:
    import pytest

    from pytest_llmdevice.diagnosis import Finding
    from pytest_llmdevice.matrix.cell import Cell

LONGEST: Final = 600
"""Characters of a message."""

NEVER_CALLED: Final = "hollow: its test function was never called"
NO_RESULT: Final = "hollow: it ended without a result, whatever its test was reported to be"
OTHERWISE: Final = "what it found was reported as a pass by something else"
DRY: Final = "not requested: fixtures were set up or planned only, and no test was called"

_CRASHED: Final = "???"
"""xdist's phase of a test in which a worker died."""


@dataclass
class ItemRecord:
    """What the reports of one test have said so far.

    Attributes:
        cell: the cell that it runs on.
        check: the name of the check.
        target: the code under test.
        dry: whether pytest was told to call no test, as by `--setup-plan`.
        outcome: the worst of its phases.
        seconds: how long they took.
        values: the other fields of its record.
        loaded: whether its cell had a model.
        reruns: how often it was run again.
        over: whether nothing more will be said of it.
    """

    cell: Cell
    check: str
    target: str
    dry: bool = False
    outcome: CheckOutcome = "passed"
    seconds: float = 0.0
    values: dict[str, Any] = field(default_factory=dict)
    loaded: bool = False
    reruns: int = 0
    over: bool = False
    _details: dict[str, Any] = field(default_factory=dict)
    _begun: bool = False

    def add(self, report: pytest.TestReport) -> None:
        """Take one phase in: the worst one counts, a failure in its teardown too."""
        if report.when == "teardown" and not self._begun:
            # Of a try that another one follows.
            return
        self._begun = True
        self.seconds += report.duration
        details = details_of(report)
        self._details |= details
        self.target = details.get("target", self.target)
        self.loaded = self.loaded or bool(details.get("loaded"))
        if "evidence" in details:
            self.values["evidence"] = details["evidence"]
        # Of other plugins: pytest itself knows neither this outcome nor xdist's phase below.
        if str(report.outcome) == "rerun":
            self._again()
        elif report.outcome == "failed":
            self._add_failure(report, details)
        elif report.outcome == "skipped" and self.outcome == "passed":
            self._add_skip(report, details)
        # The report of a test that a worker did not live to run has no other phase.
        if report.when == "teardown" or not report.user_properties:
            self.over = True
            self._settle()

    def _again(self) -> None:
        """Forget what was found: the test is run once more."""
        self.outcome, self.seconds, self._begun = "passed", 0.0, False
        self.values, self._details = {}, {}
        self.reruns += 1

    def _settle(self) -> None:
        """Decide, after the last phase, whether what nothing is wrong with was looked at."""
        if self.outcome != "passed":
            return
        called, result = self._details.get("called"), self._details.get("result")
        if self.dry and not called:
            self.outcome = "skipped"
            self.values |= {"cause": "not requested", "message": DRY}
        elif not called:
            self._is_hollow(NEVER_CALLED)
        elif self.check in checks() and result != "passed":
            if result == "failed":
                self.outcome = "failed"
                self.values |= {"failure": "other", "message": OTHERWISE}
            else:
                self._is_hollow(NO_RESULT)

    def record(self) -> Check:
        """The record of the check."""
        return Check(
            cell=self.cell.id,
            target=self.target,
            simulated=self.cell.simulated,
            check=encodable(self.check),
            outcome=self.outcome,
            seconds=round(self.seconds, 4),
            reruns=self.reruns,
            **self.values,
        )

    def _is_hollow(self, message: str) -> None:
        self.outcome = "hollow"
        self.values["message"] = message

    def _add_failure(self, report: pytest.TestReport, details: Mapping[str, Any]) -> None:
        self.outcome = _of_failure(report, details)
        self.values |= {"failure": details.get("failure", "other"), "message": encodable(_message(report))}
        self.values["findings"] = [recorded_finding(finding) for _, finding in findings_of(report)]
        if self.outcome in {"hollow", "xpass"}:
            del self.values["failure"]
            self.values["findings"] = []

    def _add_skip(self, report: pytest.TestReport, details: Mapping[str, Any]) -> None:
        reason = getattr(report, "wasxfail", None)
        if reason is None:
            self.outcome = "skipped"
            self.values |= {"cause": details.get("cause", "by the test"), "message": encodable(_skipped(report))}
        elif "upstream" in details and not details.get("declared"):
            self.outcome = "upstream"
            self.values |= {"message": encodable(details["upstream"])}
            self.values["findings"] = [recorded_finding(finding) for _, finding in findings_of(report)]
        elif details.get("gave up"):
            # Raised and not found: nothing was seen to fail.
            self.outcome = "skipped"
            self.values |= {"cause": "by the test", "message": encodable(f"xfail: {reason.removeprefix('reason: ')}")}
        else:
            self.outcome = "xfail"
            self.values["message"] = encodable(details.get("reason") or reason)
            self.values["undeclared"] = self.check in checks() and not details.get("declared")


def _of_failure(report: pytest.TestReport, details: Mapping[str, Any]) -> CheckOutcome:
    text = str(report.longrepr)
    if text.startswith("[XPASS(strict)]"):
        return "xpass"
    if details.get("aborted") or str(report.when) == _CRASHED:
        return "aborted"
    if details.get("hollow"):
        return "hollow"
    return "failed" if report.when == "call" else "error"


def _message(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = (crash.message if crash is not None else str(report.longrepr)).strip().splitlines()
    first = lines[0] if lines else ""
    return first if len(first) <= LONGEST else f"{first[:LONGEST]}..."


def _skipped(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return str(reason).removeprefix("Skipped: ").removeprefix(f"{CellSkipped.__name__}: ")


def recorded_finding(finding: Finding) -> RecordedFinding:
    """`finding` as a record has it."""
    hint = finding.hint
    known = {} if hint is None else {"hint": hint.name, "advice": hint.text, "source": hint.source}
    return RecordedFinding(
        where=finding.where, expected=finding.expected, actual=finding.actual, kind=finding.kind, **known
    )
