"""What `llmdevice merge` says of the results that it has put together."""

from __future__ import annotations

from pathlib import Path

import pytest
from results.builder import CARD, CPU_BF16, CPU_FP32, CUDA, SIMULATED, ResultsBuilder

from pytest_llmdevice.report.merge_text import merge_data, merge_lines
from pytest_llmdevice.report.model import ReportModel
from pytest_llmdevice.results.merged_results import merge_runs
from pytest_llmdevice.results.store import read

LAPTOP_RUN = ResultsBuilder(
    {CPU_FP32: {"dtypes": "passed"}, SIMULATED: {"dtypes": "passed"}},
    skipped={CPU_BF16: ("not requested", "not requested: --llm-cell leaves it out")},
    simulated=["cuda:1"],
    name="laptop",
)
CARD_RUN = ResultsBuilder({CARD: {"dtypes": "failed"}}, machine=CUDA, name="card", matrix="cuda")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    LAPTOP_RUN.write(tmp_path)
    return tmp_path


def report(folder: Path) -> ReportModel:
    return ReportModel.of(merge_runs(read(folder)))


def test_the_outcomes_are_those_of_real_hardware(folder: Path) -> None:
    CARD_RUN.write(folder)
    data = merge_data(report(folder))
    assert data["outcomes"] == {"failed": 1, "passed": 1, "never ran": 1}
    assert (data["cells"], data["simulated_only"]) == (3, [])


def test_what_never_ran_is_counted_by_device_and_reason(folder: Path) -> None:
    assert merge_data(report(folder))["never_ran"] == [
        {"device": "cpu", "reason": "not requested: --llm-cell leaves it out", "cells": [CPU_BF16.id]}
    ]


def test_the_lines_say_what_ran_where_and_what_did_not(folder: Path) -> None:
    assert list(merge_lines(report(folder))) == [
        "1 run:",
        "  laptop: default, builtin, on Some CPU; simulated cuda:1",
        "target builtin, the loader of pytest-llmdevice itself: no code of a project was tested",
        "3 cells: 1 passed, 1 not run; simulated: 1 passed",
        "not run anywhere:",
        "  1 on cpu: not requested: --llm-cell leaves it out",
    ]


def test_conflicts_are_listed_with_where_each_outcome_is_from(tmp_path: Path) -> None:
    ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}, name="one").write(tmp_path)
    ResultsBuilder({CPU_FP32: {"dtypes": "xfail"}}, name="two").write(tmp_path)
    lines = list(merge_lines(report(tmp_path)))
    assert lines[-2] == "1 conflict, the worse outcome counts:"
    assert lines[-1].startswith("  llama.cpu.fp32.none.to dtypes: failed as expected in two, passed in one: one commit")
