"""What became of each cell, gathered from pytest's reports, and the lines that say so at the end of a run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

import pytest

from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.required import missing

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from pytest_llmdevice.run import MatrixRun

State = Literal["passed", "failed", "xfailed", "skipped"]

_ORDER: tuple[State, ...] = ("failed", "xfailed", "passed", "skipped")


class Outcomes:
    """The outcome of each cell: the worst of its tests, a failure before an expected one before a pass."""

    def __init__(self, run: MatrixRun) -> None:
        self._run = run
        self._by_id: dict[str, State] = {}
        self._expected: dict[str, set[str]] = {}

    def add(self, report: pytest.TestReport) -> None:
        """Take in one report. Subtests report for themselves and again with their test; only the test counts."""
        if type(report) is not pytest.TestReport:
            return
        cell_id = next((value for key, value in report.user_properties if key == "llm.cell"), None)
        state = _state(report)
        if isinstance(cell_id, str) and state is not None:
            if state == "xfailed":
                self._expected.setdefault(report.wasxfail, set()).add(cell_id)
            known = self._by_id.get(cell_id, "skipped")
            self._by_id[cell_id] = min(known, state, key=_ORDER.index)

    def headline(self) -> str:
        """The matrix and how many of its cells will run here."""
        verdicts = self._run.verdicts.values()
        causes = Counter(verdict.cause for verdict in verdicts if not verdict.runs)
        skipped = ", ".join(f"{count} {cause}" for cause, count in causes.items())
        running = sum(verdict.runs for verdict in verdicts)
        name = self._run.settings.matrix
        return f"llm matrix {name}: {_cells(len(self._run.cells))}, {running} run here" + (
            f", {skipped}" if skipped else ""
        )

    def unmet(self) -> list[str]:
        """What `[require]` asks for and no cell passed; empty when there is nothing of the kind."""
        if self._run.matrix.require is None:
            return []
        return missing(self._run.matrix.require, self._run.cells, self._passed)

    def _passed(self, cell: Cell) -> bool:
        # A pretended device proves nothing about hardware.
        return not cell.simulated and self._by_id.get(cell.id) == "passed"

    def summarize(self, reporter: TerminalReporter) -> None:
        """Write which cells passed and why the others did not run."""
        states: Counter[str] = Counter(self._by_id.get(cell.id, "no test ran") for cell in self._run.cells)
        unmet = self.unmet()
        reporter.section(f"llm matrix {self._run.settings.matrix}", red=bool(unmet) or "failed" in states)
        order = (*_ORDER, "no test ran")
        reporter.write_line(
            f"{_cells(len(self._run.cells))}: "
            + ", ".join(f"{states[state]} {_WORDS.get(state, state)}" for state in order if states[state])
        )
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
        for line in unmet:
            reporter.write_line(f"  [require] not met: {line}", red=True)


_WORDS = {"skipped": "not run", "xfailed": "failed as expected"}


def _state(report: pytest.TestReport) -> State | None:
    if report.outcome == "failed":
        return "failed"
    if report.outcome == "skipped":
        return "xfailed" if hasattr(report, "wasxfail") else "skipped"
    return "passed" if report.when == "call" else None


def _cells(count: int) -> str:
    return f"{count} cell" if count == 1 else f"{count} cells"
