"""Evaluates a run at its end: holds it against a baseline and `[require]`, writes reports, updates a baseline."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pytest_llmdevice.errors import ConfigurationError, LLMDeviceError
from pytest_llmdevice.matrix.required import missing
from pytest_llmdevice.report.model import ReportModel
from pytest_llmdevice.report.outputs import SUMMARY, Output
from pytest_llmdevice.report.spec import parse_grid
from pytest_llmdevice.results import gate
from pytest_llmdevice.results.baseline import Baseline, read_baseline
from pytest_llmdevice.results.compare import compare
from pytest_llmdevice.results.merged_results import merge_runs
from pytest_llmdevice.results.store import RunFile, read
from pytest_llmdevice.results.update import FORCE_WORDS, update

if TYPE_CHECKING:
    from pytest_llmdevice.plugin.options import Settings
    from pytest_llmdevice.plugin.session import MatrixRun
    from pytest_llmdevice.results.transitions import Comparison


@dataclass
class Evaluation:
    """Everything that is done once at the end, and looked at before the beginning.

    Attributes:
        run: the run that it is about.
        outputs: the reports to write.
        fail_on: the differences from the baseline that fail the run.
        baseline: what the results are held against; None for nothing.
        report: what there is to say about the results; None until `conclude`.
        unmet: what `[require]` asks for and no cell has shown.
        gate_result: whether the results are as good as the baseline; None without one.
        written: what was written where, in sentences.
        refused: what could not be written, in sentences.
    """

    run: MatrixRun
    outputs: tuple[Output, ...] = ()
    fail_on: gate.FailOn = field(default_factory=lambda: gate.parse_fail_on(""))
    baseline: Baseline | None = None
    report: ReportModel | None = None
    unmet: Sequence[str] = ()
    gate_result: gate.GateResult | None = None
    written: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @classmethod
    def prepare(cls, run: MatrixRun) -> Self:
        """Read what the options name.

        Raises:
            ConfigurationError: an option makes no sense, or the baseline cannot be read.
        """
        settings = run.settings
        _refuse_orphans(settings)
        # A job on GitHub shows what is appended to this file.
        summary = os.environ.get(SUMMARY)
        asked = settings.reports or ((f"md:{summary}",) if summary else ())
        with _named("--llm-report"):
            outputs = tuple(_beside(Output.parse(text), settings.here) for text in asked)
        if settings.grid:
            with _named("--llm-grid"):
                parse_grid(settings.grid)
        with _named("--llm-fail-on"):
            fail_on = gate.parse_fail_on(settings.fail_on)
        held = None if settings.baseline_update else settings.baseline
        return cls(run, outputs, fail_on, read_baseline(held) if held is not None else None)

    @property
    def bad(self) -> bool:
        """Whether the run must be red, whatever its tests say."""
        red = self.report is not None and self.report.red
        return bool(red or self.unmet or self.refused or (self.gate_result is not None and not self.gate_result.good))

    def conclude(self, file: RunFile, refused: str = "") -> None:
        """Merge, compare, and write what is to be written. Nothing is raised for what cannot be written.

        Args:
            file: the records of the run.
            refused: why they could not be written to the end; empty where they were.
        """
        self.refused += [refused] if refused else []
        results = merge_runs([file])
        comparison: Comparison | None = None
        # One part cannot show what the whole must: that is asked of the merged results, by `llmdevice gate --require`.
        require = self.run.matrix.require if self.run.shard is None else None
        self.unmet = missing(require, self.run.cells, results.passed) if require is not None else ()
        if self.baseline is not None:
            with self._refusing():
                comparison = compare(results, self.baseline, slower=self.fail_on.slower, larger=self.fail_on.larger)
                # A part was asked for, and is held against its part; the whole is for `llmdevice gate`.
                self.gate_result = gate.evaluate_gate(comparison, results, self.fail_on, whole=self.run.shard is None)
        elif self.run.settings.baseline_update:
            with self._refusing():
                self._update(file)
        if self.run.settings.results is not None and not self.refused:
            self.written.append(f"results: {file.path}")
        self.report = ReportModel.of(results, comparison)
        for output in self.outputs:
            with self._refusing():
                output.write(self.report)
                self.written.append(f"{output.format} report: {output.path}")

    def _update(self, file: RunFile) -> None:
        settings = self.run.settings
        assert settings.baseline is not None
        # Earlier runs in the same folder are the repeated runs that a gate on times needs.
        runs = read(settings.results) if settings.results is not None else [file]
        made = update(merge_runs(runs), settings.baseline, force=settings.baseline_force, environment=os.environ)
        self.written += [f"baseline: {made.path}, {made.head.checks} checks of {made.head.cells} cells", *made.notes]

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except LLMDeviceError as error:
            self.refused.append(str(error))


def _beside(output: Output, folder: Path) -> Output:
    return replace(output, path=folder / output.path)


def _refuse_orphans(settings: Settings) -> None:
    if settings.baseline is None:
        for flag, given in (
            ("--llm-baseline-update", settings.baseline_update),
            ("--llm-fail-on", settings.fail_on),
        ):
            if given:
                raise ConfigurationError(f"{flag}: give the file with --llm-baseline FILE")
    if settings.baseline_force and not settings.baseline_update:
        raise ConfigurationError("--llm-baseline-force: add --llm-baseline-update, without it no baseline is written")
    for word in settings.baseline_force:
        if word not in FORCE_WORDS:
            raise ConfigurationError(f"--llm-baseline-force {word!r}: known are {', '.join(FORCE_WORDS)}")


@contextmanager
def _named(flag: str) -> Iterator[None]:
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{flag}: {error}") from None
