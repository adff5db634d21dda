"""Hands pytest's terminal reporter what `brevity` has chosen, while it prints its sections and its short summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmdevice.plugin.brevity import STATES, Brief, as_asked, brief

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from pytest_llmdevice.plugin.recorder import Recorder
    from pytest_llmdevice.report.problems import Problem


class BriefSections:
    """The reports of failed tests as they are printed; between the sections, and after them, they are all there.

    Args:
        config: pytest's.
        again: makes the command that runs a cell again, from its id.
    """

    def __init__(self, config: pytest.Config, again: Callable[[str], str]) -> None:
        self._config = config
        self._again = again
        self._all: dict[str, list[Any]] = {}
        self._brief: Brief | None = None

    @contextmanager
    def printing(
        self, reporter: TerminalReporter, problems: Sequence[Problem], recorder: Recorder | None
    ) -> Iterator[None]:
        """While pytest prints its summary of a run with `problems`."""
        if recorder is None:
            yield
            return
        self._all = {state: reporter.stats[state] for state in STATES if state in reporter.stats}
        if self._everything(reporter):
            chosen = Brief(dict(self._all), dict(self._all))
        else:
            chosen = brief(self._all, problems, recorder.naming)
        style = self._config.option.tbstyle
        for state, reports in chosen.shown.items():
            chosen.shown[state] = [self._asked(report, style, recorder) for report in reports]
        self._brief = chosen
        self._hand(reporter, chosen.shown)
        try:
            yield
        finally:
            self._hand(reporter, self._all)
            self._brief = None
        if chosen.rest and not reporter.no_summary and set(reporter.reportchars) & set("fE"):
            reporter.write_line(chosen.rest)

    @pytest.hookimpl(specname="pytest_terminal_summary", tryfirst=True)
    def pytest_summary_between(self, terminalreporter: TerminalReporter) -> None:
        """Before whatever others have to say: they find all reports."""
        if self._brief is not None:
            self._hand(terminalreporter, self._all)

    @pytest.hookimpl(specname="pytest_terminal_summary", trylast=True)
    def pytest_summary_short(self, terminalreporter: TerminalReporter) -> None:
        """Before pytest's short summary, which follows."""
        if self._brief is not None:
            self._hand(terminalreporter, self._brief.listed)

    def _asked(self, report: Any, style: str, recorder: Recorder) -> Any:
        try:
            _, cell, check = recorder.naming(report)
        except LookupError:
            return report
        return as_asked(report, check, style, self._again(cell))

    def _everything(self, reporter: TerminalReporter) -> bool:
        """Whether all was asked for, by `-v` or by an `-r` that has more than the usual."""
        return reporter.verbosity > 0 or bool(set(self._config.option.reportchars) & set("aA"))

    @staticmethod
    def _hand(reporter: TerminalReporter, reports: dict[str, list[Any]]) -> None:
        for state, of_state in reports.items():
            if state in reporter.stats:
                reporter.stats[state] = of_state
