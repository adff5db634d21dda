"""What commands read: results of several runs as one, and a baseline to hold them against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_llmdevice.results.merged_results import MergedResults
from pytest_llmdevice.results.transitions import Comparison


def read_results(paths: Sequence[Path]) -> MergedResults:
    """The runs in `paths`, files and folders, as one.

    Raises:
        ResultsError: one is missing or is no file of results.
    """
    from pytest_llmdevice.results.merged_results import merge_runs
    from pytest_llmdevice.results.store import read

    return merge_runs(read(list(paths)))


def compare_with_baseline(merged: MergedResults, baseline: Path | None) -> Comparison | None:
    """`merged` held against `baseline`; None where there is none.

    Raises:
        ResultsError: it cannot be read, or is one of another matrix.
    """
    if baseline is None:
        return None
    from pytest_llmdevice.results.baseline import read_baseline
    from pytest_llmdevice.results.compare import compare

    return compare(merged, read_baseline(baseline))
