"""Reads the results and the baseline that commands work on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_llmdevice.results.merged_results import Union
from pytest_llmdevice.results.transitions import Comparison


def united(paths: Sequence[Path]) -> Union:
    """The runs in `paths`, files and folders, as one.

    Raises:
        ResultsError: one is missing or is no file of results.
    """
    from pytest_llmdevice.results.merged_results import unite
    from pytest_llmdevice.results.store import read

    return unite(read(list(paths)))


def compared(union: Union, baseline: Path | None) -> Comparison | None:
    """`union` held against `baseline`; None where there is none.

    Raises:
        ResultsError: it cannot be read, or is one of another matrix.
    """
    if baseline is None:
        return None
    from pytest_llmdevice.results.baseline import read_baseline
    from pytest_llmdevice.results.compare import compare

    return compare(union, read_baseline(baseline))
