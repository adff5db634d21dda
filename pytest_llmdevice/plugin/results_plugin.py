"""Records what a run learns and evaluates it at the end, in the process where all test reports arrive."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_llmdevice.plugin.again import command
from pytest_llmdevice.plugin.brief_sections import BriefSections
from pytest_llmdevice.plugin.evaluation import Evaluation
from pytest_llmdevice.plugin.options import usage_errors
from pytest_llmdevice.plugin.recorder import Recorder
from pytest_llmdevice.plugin.run_record import header
from pytest_llmdevice.plugin.summary import write_summary
from pytest_llmdevice.results.redaction import Redactor

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from pytest_llmdevice.plugin.session import MatrixRun

PROGRESS_SECONDS: Final = 30.0
"""How often a long run says how far it has come."""


class RecordedItems:
    """Has each report recorded, says how far a long run has come, and ends it with what the results are worth."""

    def __init__(self, config: pytest.Config, run: MatrixRun) -> None:
        self._run = run
        self._config = config
        self._recorder: Recorder | None = None
        self._evaluation: Evaluation | None = None
        self._started = self._said = time.monotonic()
        self._brief = BriefSections(config, self._again)
        config.pluginmanager.register(self._brief, "llmdevice-brief")
        config.add_cleanup(self._close)

    # After the run was prepared (that hook is tryfirst), before xdist starts its workers (trylast).
    def pytest_sessionstart(self) -> None:
        """Begin the file of results, after everything that the user could have got wrong was looked at."""
        with usage_errors():
            self._evaluation = Evaluation.prepare(self._run)
            self._recorder = Recorder(
                self._run,
                header(self._run, tuple(map(str, self._config.invocation_params.args)), self._config.rootpath),
                self._run.settings.results,
                Redactor.of(),
                # `--setup-plan` sets both.
                dry=bool(self._config.option.setuponly),
            )
        self._started = self._said = time.monotonic()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Know the tests of each cell; with xdist the workers collect, see below."""
        if session.items:
            self.expect([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Know the tests of each cell. Every worker collects the same ones."""
        self.expect(ids)

    def expect(self, nodeids: Sequence[str]) -> None:
        """Hand the collected tests to the recorder."""
        if self._recorder is not None:
            self._recorder.expect(nodeids)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Record which cell is being run: of a process that is killed nothing else says it."""
        if self._recorder is not None:
            self._recorder.begin(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record a report, and now and then say how far the run has come."""
        if self._recorder is None:
            return
        self._recorder.take(report)
        now = time.monotonic()
        if now - self._said >= PROGRESS_SECONDS:
            self._said = now
            self._progress(self._recorder, now - self._started)

    def _progress(self, recorder: Recorder, seconds: float) -> None:
        reporter: Any = self._config.pluginmanager.getplugin("terminalreporter")
        done, running = recorder.done, recorder.running
        if reporter is None or not 0 < done < running or reporter.verbosity < 0:
            return
        left = _duration(seconds / done * (running - done))
        bad = f", {recorder.bad} with problems" if recorder.bad else ""
        reporter.ensure_newline()
        reporter.write_line(
            f"llm matrix: {done} of {running} cells{bad}, {_duration(seconds)} so far, about {left} left"
        )

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """End the file, compare, write the reports, and turn a run red that is not as good as it was asked to be."""
        if self._recorder is None or self._evaluation is None:
            return
        self._recorder.finish(int(exitstatus))
        self._evaluation.conclude(self._recorder.file, self._recorder.refused)
        # Only a run that ended well can be turned red: an interruption has a status of its own.
        if exitstatus == pytest.ExitCode.OK and self._evaluation.bad:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> Generator[None, object, object]:
        """Write the grid, what did not run, and what is wrong, after all that pytest and others have to say."""
        report = self._evaluation.report if self._evaluation is not None else None
        if report is None or self._evaluation is None:
            return (yield)
        with self._brief.printing(terminalreporter, report.problems, self._recorder):
            result = yield
        write_summary(terminalreporter, self._run, self._evaluation, self._again)
        return result

    def _again(self, cell: str) -> str:
        return command(self._config, cell)

    def _close(self) -> None:
        if self._recorder is not None:
            self._recorder.close()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
