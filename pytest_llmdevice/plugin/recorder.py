"""Turns pytest's reports into records of what became of each check and cell, and writes each as it finishes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_llmdevice.errors import ResultsError
from pytest_llmdevice.plugin.failures import details_of, findings_of
from pytest_llmdevice.plugin.parametrize import cell_id_in
from pytest_llmdevice.results.records import (
    CellDone,
    Check,
    End,
    Planned,
    Record,
    RecordedFinding,
    Run,
    adapter,
)
from pytest_llmdevice.results.redaction import Redactor
from pytest_llmdevice.results.store import RunFile, Writer, dumped
from pytest_llmdevice.results.vocabulary import BAD, WORST_FIRST, Outcome
from pytest_llmdevice.text import encodable

if TYPE_CHECKING:
    from pytest_llmdevice.matrix.cell import Cell
    from pytest_llmdevice.plugin.session import MatrixRun

HERE: Final = Path("this run")
"""What stands for a file where none is written."""

LONGEST: Final = 600
"""Characters of a message."""

_CRASHED: Final = "???"
"""xdist's phase of a test in which a worker died."""


@dataclass
class _Item:
    """What the reports of one test have said so far."""

    cell: Cell
    check: str
    target: str
    outcome: Outcome = "passed"
    seconds: float = 0.0
    values: dict[str, Any] = field(default_factory=dict)
    rerun: bool = False


class Recorder:
    """Takes in the reports of a run, in the process that has all of them.

    Args:
        run: the run, whose cells are planned.
        first: the first record of the file.
        folder: where the file is written; None for nowhere.
        redactor: what hides secrets, before anything is written or shown.

    Attributes:
        file: all records so far, as a reader of the file would find them.
        refused: why nothing more is written, the disk being full; empty while all is.

    Raises:
        ResultsError: `folder` cannot be written to.
    """

    def __init__(self, run: MatrixRun, first: Run, folder: Path | None, redactor: Redactor) -> None:
        self._redactor = redactor
        self.refused = ""
        first = self._clean(first)
        self._writer = Writer(folder, first, Redactor((), (), frozenset())) if folder is not None else None
        self.file = RunFile(self._writer.path if self._writer else HERE, first)
        self._cells = {cell.id: cell for cell in run.cells}
        self._ids = frozenset(self._cells)
        self._running = {cell.id for cell, decision in run.decisions.items() if decision.runs}
        self._expected: Counter[str] = Counter()
        self._finished: Counter[str] = Counter()
        self._open: dict[str, _Item] = {}
        self._checks: dict[str, list[Check]] = {}
        self._measured: dict[str, dict[str, Any]] = {}
        planned = (
            Planned.of(cell, decision.state, None if decision.runs else decision.cause, decision.reason)
            for cell, decision in run.decisions.items()
        )
        self._keep(*planned)

    @property
    def done(self) -> int:
        """How many of the cells that run are finished."""
        return len(self.file.cells)

    @property
    def running(self) -> int:
        """How many cells run."""
        return sum(1 for cell in self._running if self._expected[cell])

    @property
    def bad(self) -> int:
        """How many cells are finished and make the run red."""
        return sum(cell.outcome in BAD for cell in self.file.cells.values())

    def expect(self, nodeids: Iterable[str]) -> None:
        """Say which tests were collected, so that it is known when a cell is finished."""
        cell_ids = (cell_id_in(nodeid, self._ids) for nodeid in nodeids)
        self._expected = Counter(cell_id for cell_id in cell_ids if cell_id is not None)

    def take(self, report: pytest.TestReport) -> None:
        """Take in one report. Subtests report for themselves and again with their test; only the test counts."""
        if type(report) is not pytest.TestReport:
            return
        properties = dict(report.user_properties)
        # The report of a test whose worker died is xdist's, without properties.
        cell_id = properties.get("llm.cell") or cell_id_in(report.nodeid, self._ids)
        if cell_id not in self._running:
            return
        name = str(properties.get("llm.check", "")) or report.nodeid.rpartition("::")[2].partition("[")[0].removeprefix(
            "test_"
        )
        item = self._open.setdefault(report.nodeid, _Item(self._cells[cell_id], name, self.file.run.target))
        _add(item, report)
        measured = self._measured.setdefault(cell_id, {})
        measured |= details_of(report).get("measured", {})
        if tokens := details_of(report).get("tokens"):
            measured["tokens"] = tokens
        if report.when == "teardown" or not properties:
            del self._open[report.nodeid]
            self._close(item)

    def finish(self, exit_status: int) -> None:
        """Write what was cut short, and the end. The file is closed."""
        for item in self._open.values():
            # What was interrupted has not passed, whatever its setup said.
            if item.outcome == "passed":
                item.outcome = "aborted"
            self._keep(_check(item))
        for cell_id, cell in self._cells.items():
            if cell_id in self._running and cell_id not in self.file.cells:
                self._keep(self._unfinished(cell))
        self._keep(End(finished=now(), exit_status=exit_status))
        self.close()

    def close(self) -> None:
        """Close the file, if there is one."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _close(self, item: _Item) -> None:
        if item.rerun:
            return
        check = _check(item)
        self._keep(check)
        cell_id = item.cell.id
        self._checks.setdefault(cell_id, []).append(check)
        self._finished[cell_id] += 1
        if self._finished[cell_id] == self._expected[cell_id] and cell_id not in self.file.cells:
            self._keep(self._cell(item.cell))

    def _cell(self, cell: Cell) -> CellDone:
        checks = self._checks[cell.id]
        counts = Counter(check.outcome for check in checks)
        worst = next(check for outcome in WORST_FIRST for check in checks if check.outcome == outcome)
        values = self._measured.get(cell.id, {})
        return CellDone(
            cell=cell.id,
            target=worst.target,
            simulated=cell.simulated,
            outcome=worst.outcome,
            failure=worst.failure,
            cause=worst.cause,
            seconds=round(sum(check.seconds for check in checks), 4),
            checks=dict(counts),
            **values,
        )

    def _unfinished(self, cell: Cell) -> CellDone:
        """What is said of a cell at the end of a run that did not come to it, or not to its end."""
        if self._expected[cell.id] and self._finished[cell.id] >= self._expected[cell.id]:
            return self._cell(cell)
        target, simulated = self.file.run.target, cell.simulated
        if not self._expected[cell.id]:
            return CellDone(cell=cell.id, target=target, simulated=simulated, outcome="skipped", cause="not requested")
        counts = Counter(check.outcome for check in self._checks.get(cell.id, ()))
        return CellDone(cell=cell.id, target=target, simulated=simulated, outcome="aborted", checks=dict(counts))

    def _keep(self, *records: Record) -> None:
        clean = [self._clean(record) for record in records]
        self._write(clean)
        for record in clean:
            match record:
                case Planned():
                    self.file.planned[record.cell] = record
                case Check():
                    self.file.checks.append(record)
                case CellDone():
                    self.file.cells[record.cell] = record
                case End():
                    self.file.end = record

    def _write(self, records: Iterable[Record]) -> None:
        if self._writer is None:
            return
        try:
            self._writer.write(*records)
        except ResultsError as error:
            # The tests go on, and the run is red at its end: raised here it would end the run in the middle.
            self.refused = str(error)
            self.close()

    def _clean(self, record: Any) -> Any:
        """`record` as it is read back from a line without secrets."""
        return adapter().validate_json(dumped(record, self._redactor))


def now() -> str:
    """The time, ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _add(item: _Item, report: pytest.TestReport) -> None:
    """Take one phase of a test in: the worst one counts, a failure in its teardown too."""
    item.seconds += report.duration
    details = details_of(report)
    item.target = details.get("target", item.target)
    if "evidence" in details:
        item.values["evidence"] = details["evidence"]
    # Of other plugins: pytest itself knows neither this outcome nor xdist's phase below.
    if str(report.outcome) == "rerun":
        item.rerun = True
    elif report.outcome == "failed":
        item.outcome = _of_failure(report, details)
        item.values |= {"failure": details.get("failure", "other"), "message": encodable(_message(report))}
        item.values["findings"] = [_finding(*finding) for finding in findings_of(report)]
        if item.outcome in {"hollow", "xpass"}:
            del item.values["failure"]
            item.values["findings"] = []
    elif report.outcome == "skipped" and item.outcome == "passed":
        item.outcome = "xfail" if hasattr(report, "wasxfail") else "skipped"
        item.values["message"] = encodable(report.wasxfail if item.outcome == "xfail" else _skipped(report))
        if item.outcome == "skipped":
            item.values["cause"] = details.get("cause", "by the test")


def _of_failure(report: pytest.TestReport, details: Mapping[str, Any]) -> Outcome:
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
    return str(reason).removeprefix("Skipped: ")


def _finding(_: str, finding: Any) -> RecordedFinding:
    hint = finding.hint
    known = {} if hint is None else {"hint": hint.name, "advice": hint.text, "source": hint.source}
    return RecordedFinding(
        where=finding.where, expected=finding.expected, actual=finding.actual, kind=finding.kind, **known
    )


def _check(item: _Item) -> Check:
    return Check(
        cell=item.cell.id,
        target=item.target,
        simulated=item.cell.simulated,
        check=encodable(item.check),
        outcome=item.outcome,
        seconds=round(item.seconds, 4),
        **item.values,
    )
