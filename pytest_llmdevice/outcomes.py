"""What became of each cell, gathered from pytest's reports, and the lines that say so at the end of a run."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import pytest

from pytest_llmdevice.diagnosis.grouping import Seen, causes, listed
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.required import missing
from pytest_llmdevice.reported import findings_of

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from pytest_llmdevice.run import MatrixRun

State = Literal["passed", "failed", "xfailed", "skipped"]

_ORDER: tuple[State, ...] = ("failed", "xfailed", "passed", "skipped")
_SIMULATED = " simulated"


class Outcomes:
    """The outcome of each cell: the worst of its tests, a failure before an expected one before a pass."""

    def __init__(self, run: MatrixRun) -> None:
        self._run = run
        self._by_id: dict[str, State] = {}
        self._expected: dict[str, set[str]] = {}
        self._seen: list[Seen] = []

    @cached_property
    def _cells(self) -> dict[str, Cell]:
        return {cell.id: cell for cell in self._run.cells}

    def add(self, report: pytest.TestReport) -> None:
        """Take in one report. Subtests report for themselves and again with their test; only the test counts."""
        if type(report) is not pytest.TestReport:
            return
        cell_id = self._cell_of(report)
        state = _state(report)
        if cell_id is not None and state is not None:
            if state == "failed":
                self._note(report, cell_id)
            if state == "xfailed":
                self._expected.setdefault(report.wasxfail, set()).add(cell_id)
            known = self._by_id.get(cell_id, "skipped")
            self._by_id[cell_id] = min(known, state, key=_ORDER.index)

    def _cell_of(self, report: pytest.TestReport) -> str | None:
        found = next((value for key, value in report.user_properties if key == "llm.cell"), None)
        if found is None and report.failed:
            # The report of a test whose worker died is xdist's, without properties.
            parameters = report.nodeid.partition("[")[2].removesuffix("]")
            found = parameters if parameters in self._cells else None
        return found if isinstance(found, str) else None

    def _note(self, report: pytest.TestReport, cell_id: str) -> None:
        cell = self._cells.get(cell_id)
        simulated = cell is not None and cell.simulated
        self._seen += (Seen(cell_id, check, finding, simulated) for check, finding in findings_of(report))

    def headline(self) -> str:
        """The matrix and how many of its cells will run here."""
        verdicts = self._run.verdicts.values()
        causes = Counter(verdict.cause for verdict in verdicts if not verdict.runs)
        skipped = ", ".join(f"{count} {cause}" for cause, count in causes.items())
        states = Counter(verdict.state for verdict in verdicts)
        pretended = f", {states['run simulated']} simulated" if states["run simulated"] else ""
        name = self._run.settings.matrix
        return f"llm matrix {name}: {_cells(len(self._run.cells))}, {states['run']} run here{pretended}" + (
            f", {skipped}" if skipped else ""
        )

    def unmet(self) -> list[str]:
        """What `[require]` asks for and no cell passed on real hardware; empty when there is nothing of the kind."""
        if self._run.matrix.require is None:
            return []
        return missing(self._run.matrix.require, self._run.cells, self._passed)

    def _passed(self, cell: Cell) -> bool:
        return self._by_id.get(cell.id) == "passed"

    def _counted(self) -> str:
        """`"88 passed, 150 passed simulated, 300 not run"`."""
        words: Counter[str] = Counter(self._word(cell) for cell in self._run.cells)
        ran = (f"{_WORDS.get(state, state)}{suffix}" for state in _ORDER[:-1] for suffix in ("", _SIMULATED))
        return ", ".join(f"{words[word]} {word}" for word in (*ran, "not run", "no test ran") if words[word])

    def _word(self, cell: Cell) -> str:
        state = self._by_id.get(cell.id, "no test ran")
        if state == "no test ran":
            return state
        # What did not run was not simulated either.
        return "not run" if state == "skipped" else _WORDS.get(state, state) + (_SIMULATED if cell.simulated else "")

    def summarize(self, reporter: TerminalReporter) -> None:
        """Write which cells passed and why the others did not run."""
        unmet = self.unmet()
        reporter.section(f"llm matrix {self._run.settings.matrix}", red=bool(unmet) or "failed" in self._by_id.values())
        reporter.write_line(f"{_cells(len(self._run.cells))}: {self._counted()}")
        reasons = Counter(
            (cell.spec, verdict.reason) for cell, verdict in self._run.verdicts.items() if not verdict.runs
        )
        for (spec, reason), count in reasons.items():
            reporter.write_line(f"  {count:>5} on {spec} not run: {reason}")
        for reason, cell_ids in self._expected.items():
            reporter.write_line(f"  {len(cell_ids):>5} failed as expected: {reason}")
        for cell in self._run.cells:
            if self._by_id.get(cell.id) == "failed":
                reporter.write_line(f"  failed: {cell.id}", red=True)
        self._write_causes(reporter)
        for line in unmet:
            reporter.write_line(f"  [require] not met: {line}", red=True)

    def _write_causes(self, reporter: TerminalReporter) -> None:
        """Write what the failed checks found, by cause: one bug in many cells is read once."""
        found = causes(self._seen)
        if not found:
            return
        reporter.write_line("")
        reporter.write_line("1 cause:" if len(found) == 1 else f"{len(found)} causes, of most cells first:")
        for cause, line in zip(found[:CAUSES_SHOWN], listed(found), strict=False):
            reporter.write_line(f"  {line}", red=True)
            if cause.hint is not None:
                reporter.write_line(f"     {cause.hint}")
        if len(found) > CAUSES_SHOWN:
            reporter.write_line(f"  ... and {len(found) - CAUSES_SHOWN} more")


CAUSES_SHOWN = 10

_WORDS = {"xfailed": "failed as expected"}


def _state(report: pytest.TestReport) -> State | None:
    if report.outcome == "failed":
        return "failed"
    if report.outcome == "skipped":
        return "xfailed" if hasattr(report, "wasxfail") else "skipped"
    return "passed" if report.when == "call" else None


def _cells(count: int) -> str:
    return f"{count} cell" if count == 1 else f"{count} cells"
