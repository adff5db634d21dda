"""Turns pytest's reports into records of what became of each check and cell, and writes each as it finishes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_llmdevice.errors import ResultsError
from pytest_llmdevice.plugin.failures import details_of
from pytest_llmdevice.plugin.item_record import ItemRecord
from pytest_llmdevice.plugin.parametrize import cell_id_in
from pytest_llmdevice.results.cell_view import lacking
from pytest_llmdevice.results.records import Begun, CellDone, Check, End, Planned, adapter
from pytest_llmdevice.results.redaction import Redactor
from pytest_llmdevice.results.run_header import Record, Run
from pytest_llmdevice.results.store import RunFile, Writer, dumped
from pytest_llmdevice.results.vocabulary import BAD, GOOD, WORST_FIRST, Outcome

if TYPE_CHECKING:
    from pytest_llmdevice.matrix.cell import Cell
    from pytest_llmdevice.plugin.session import MatrixRun

HERE: Final = Path("this run")
"""What stands for a file where none is written."""


class Recorder:
    """Takes in the reports of a run, in the process that has all of them.

    Args:
        run: the run, whose cells are planned.
        first: the first record of the file.
        folder: where the file is written; None for nowhere.
        redactor: what hides secrets, before anything is written or shown.
        dry: whether pytest was told to call no test, as by `--setup-plan`.

    Attributes:
        file: all records so far, as a reader of the file would find them.
        refused: why nothing more is written, the disk being full; empty while all is.

    Raises:
        ResultsError: `folder` cannot be written to.
    """

    def __init__(
        self, run: MatrixRun, first: Run, folder: Path | None, redactor: Redactor, *, dry: bool = False
    ) -> None:
        self._dry = dry
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
        self._open: dict[str, ItemRecord] = {}
        self._checks: dict[str, list[Check]] = {}
        self._measured: dict[str, dict[str, Any]] = {}
        self._loaded: set[str] = set()
        planned = (
            Planned.of(
                cell,
                decision.state,
                None if decision.runs else decision.cause,
                decision.reason,
                run.exempt(cell) if decision.runs else (),
            )
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

    def begin(self, nodeid: str) -> None:
        """Write that the cell of this test is being run, where it is the first of its tests."""
        cell_id = cell_id_in(nodeid, self._ids)
        if cell_id in self._running and cell_id not in self.file.begun:
            self._keep(Begun(cell=cell_id, check=_name_in(nodeid)))

    def take(self, report: pytest.TestReport) -> None:
        """Take in one report. Subtests report for themselves and again with their test; only the test counts."""
        if type(report) is not pytest.TestReport:
            return
        cell_id, name = self._about(report)
        if cell_id not in self._running:
            return
        item = self._open.setdefault(
            report.nodeid, ItemRecord(self._cells[cell_id], name, self.file.run.target, self._dry)
        )
        item.add(report)
        if item.loaded:
            self._loaded.add(cell_id)
        measured = self._measured.setdefault(cell_id, {})
        measured |= details_of(report).get("measured", {})
        if tokens := details_of(report).get("tokens"):
            measured["tokens"] = tokens
        if item.over:
            del self._open[report.nodeid]
            self._close(item)

    def _about(self, report: pytest.TestReport) -> tuple[str, str]:
        """The cell and the check of a report; the cell is empty where it has none."""
        properties = dict(report.user_properties)
        # The report of a test whose worker died is xdist's, without properties.
        cell_id = properties.get("llm.cell") or cell_id_in(report.nodeid, self._ids) or ""
        return str(cell_id), str(properties.get("llm.check", "")) or _name_in(report.nodeid)

    def naming(self, report: pytest.TestReport) -> tuple[str, str, str]:
        """The target, the cell and the check that a report is about.

        Raises:
            LookupError: it is about no cell of this run.
        """
        if type(report) is not pytest.TestReport:
            raise LookupError
        cell_id, name = self._about(report)
        if cell_id not in self._running:
            raise LookupError
        return details_of(report).get("target", self.file.run.target), cell_id, name

    def finish(self, exit_status: int) -> None:
        """Write what was cut short, and the end. The file is closed."""
        for item in self._open.values():
            # What was interrupted has not passed, whatever its setup said.
            if item.outcome == "passed":
                item.outcome = "aborted"
            self._keep(item.record())
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

    def _close(self, item: ItemRecord) -> None:
        check = item.record()
        self._keep(check)
        cell_id = item.cell.id
        self._checks.setdefault(cell_id, []).append(check)
        self._finished[cell_id] += 1
        if self._finished[cell_id] == self._expected[cell_id] and cell_id not in self.file.cells:
            self._keep(self._cell(item.cell))

    def _cell(self, cell: Cell) -> CellDone:
        checks = self._checks[cell.id]
        counts: Counter[Outcome] = Counter(check.outcome for check in checks)
        worst = next(check for outcome in WORST_FIRST for check in checks if check.outcome == outcome)
        loaded = cell.id in self._loaded
        ran = {check.check for check in checks if check.answered}
        left = lacking(self.file.run.required, self.file.planned[cell.id].exempt, ran)
        unloaded = not loaded and "passed" in counts
        partial = worst.outcome in GOOD and bool(left or unloaded)
        return CellDone(
            cell=cell.id,
            target=worst.target,
            simulated=cell.simulated,
            outcome="partial" if partial else worst.outcome,
            failure=worst.failure,
            cause=worst.cause,
            seconds=round(sum(check.seconds for check in checks), 4),
            checks=dict(counts),
            loaded=loaded,
            **self._measured.get(cell.id, {}),
        )

    def _unfinished(self, cell: Cell) -> CellDone:
        """What is said of a cell at the end of a run that did not come to it, or not to its end."""
        if self._expected[cell.id] and self._finished[cell.id] >= self._expected[cell.id]:
            return self._cell(cell)
        target, simulated = self.file.run.target, cell.simulated
        if not self._expected[cell.id]:
            return CellDone(cell=cell.id, target=target, simulated=simulated, outcome="skipped", cause="not requested")
        counts: Counter[Outcome] = Counter(check.outcome for check in self._checks.get(cell.id, ()))
        return CellDone(cell=cell.id, target=target, simulated=simulated, outcome="aborted", checks=dict(counts))

    def _keep(self, *records: Record) -> None:
        clean = [self._clean(record) for record in records]
        self._write(clean)
        for record in clean:
            match record:
                case Planned():
                    self.file.planned[record.cell] = record
                case Begun():
                    self.file.begun[record.cell] = record
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


def _name_in(nodeid: str) -> str:
    """The name of a test of the suite without `test_`, from its node id."""
    return nodeid.rpartition("::")[2].partition("[")[0].removeprefix("test_")
