"""Writes to the terminal what a run will do, at its beginning, and what became of it, at its end."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.report.runs import TARGETS
from pytest_llmdevice.report.terminal import terminal_lines
from pytest_llmdevice.results.run_header import BUILTIN
from pytest_llmdevice.text import harmless, plural

PROBLEMS: Final = 5
"""How many problems, and differences from a baseline, are shown in full."""

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from pytest_llmdevice.plugin.evaluation import Evaluation
    from pytest_llmdevice.plugin.session import MatrixRun


def target_line(run: MatrixRun) -> str:
    """The code under test. The built-in loader is none of the project's, of which such a run says nothing."""
    if run.settings.target is not None:
        return f"llm target {run.settings.target}"
    return f"llm target {TARGETS[BUILTIN]} (--llm-target, or the fixture llm_target, names a loader)"


def plan_line(run: MatrixRun) -> str:
    """The matrix and how many of its cells will run here."""
    decisions = run.decisions.values()
    causes = Counter(decision.cause for decision in decisions if not decision.runs)
    skipped = ", ".join(f"{count} {cause}" for cause, count in causes.items())
    states = Counter(decision.state for decision in decisions)
    simulated_machines = f", {states['run simulated']} simulated" if states["run simulated"] else ""
    cells = plural(len(run.cells), "cell")
    return f"llm matrix {run.settings.matrix}: {cells}, {states['run']} run here{simulated_machines}" + (
        f", {skipped}" if skipped else ""
    )


def write_summary(
    reporter: TerminalReporter, run: MatrixRun, evaluation: Evaluation, again: Callable[[str], str]
) -> None:
    """Write the grid, what did not run, what is wrong, and what the results are worth.

    `again` makes the command that runs a cell again, from its id.
    """
    assert evaluation.report is not None
    terminal = reporter.config.get_terminal_writer()
    reporter.section(harmless(f"llm matrix {run.settings.matrix}"), red=evaluation.bad or evaluation.report.red)
    for line in terminal_lines(
        evaluation.report,
        width=terminal.fullwidth,
        colour=terminal.hasmarkup,
        unicode="utf" in (sys.stdout.encoding or "").lower(),
        grid=run.settings.grid or None,
        worst=PROBLEMS,
        origins=False,
        again=again,
    ):
        reporter.write_line(line)
    for line in evaluation.unmet:
        reporter.write_line(harmless(f"[require] not met: {line}"), red=True)
    for line in evaluation.gate_result.reasons if evaluation.gate_result is not None else ():
        reporter.write_line(harmless(f"--llm-fail-on: {line}"), red=True)
    for line in evaluation.refused:
        reporter.write_line(harmless(line, lines=True), red=True)
    for line in evaluation.written:
        reporter.write_line(harmless(line))
