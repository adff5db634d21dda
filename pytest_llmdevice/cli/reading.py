"""Reads results of several runs as one for the commands, and compares them with a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_llmdevice.report.model import ReportModel
    from pytest_llmdevice.results.merged_results import MergedResults


def read_results(paths: Sequence[Path]) -> MergedResults:
    """Read the runs in `paths`, files and folders, as one.

    Raises:
        ResultsError: one is missing or is no file of results.
    """
    from pytest_llmdevice.results.merged_results import merge_runs
    from pytest_llmdevice.results.store import read

    return merge_runs(read(list(paths)))


def read_report(paths: Sequence[Path], baseline: Path | None) -> ReportModel:
    """Read the runs in `paths` and compare them with `baseline`, where there is one.

    Raises:
        ResultsError: it cannot be read, or is one of another matrix.
    """
    from pytest_llmdevice.report.model import ReportModel

    results = read_results(paths)
    if baseline is None:
        return ReportModel.of(results)
    from pytest_llmdevice.results.baseline import read_baseline
    from pytest_llmdevice.results.compare import compare

    return ReportModel.of(results, compare(results, read_baseline(baseline)))
