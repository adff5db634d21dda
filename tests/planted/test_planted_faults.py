"""One line of a loader that is wrong is one problem, whatever fails because of it, and two of them are two."""

from __future__ import annotations

from pathlib import Path

import pytest

from planted.examined import examined, merged
from planted.faults import CARD, CPU, FAULTS, HALF, Fault, planted
from pytest_llmdevice import Cell
from pytest_llmdevice.report.problems import Problem, find_problems

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")

BY_NAME = {fault.name: fault for fault in FAULTS}


def problems(folder: Path, cells: tuple[Cell, ...], *faults: Fault) -> list[Problem]:
    return find_problems(merged(examined(planted(*faults), cells), folder))


def said(found: list[Problem]) -> list[str]:
    return [f"{problem.title} ({problem.followers}): {problem.description}" for problem in found]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_one_planted_line_is_one_problem(fault: Fault, tmp_path: Path) -> None:
    found = problems(tmp_path, fault.cells, fault)
    assert len(found) == 1, "\n".join(said(found))
    assert found[0].checks[0] == fault.root, said(found)
    assert len(found[0].cells) == len(fault.cells)


@pytest.mark.parametrize(
    ("names", "cell", "roots"),
    [
        (("weight-scaled", "texts-returned"), CPU, {"values", "generation"}),
        (("weight-zeroed", "mask-of-ones"), CPU, {"values", "inputs"}),
        (("head-in-float32", "environment-left"), HALF, {"dtypes", "state"}),
        (("buffer-zeroed", "a-row-lost"), HALF, {"values", "generation"}),
        (("training-mode", "environment-left"), CPU, {"mode", "state"}),
        (("weight-scaled", "default-dtype-left"), CPU, {"values", "state"}),
        (("hook-left", "padded-on-the-right"), CPU, {"agreement", "inputs"}),
        (("tie-broken", "generate-raises"), Cell("qwen2", "cpu", "float32"), {"tied", "generation"}),
        (("rope-theta-guessed", "one-layer-in-float32"), HALF, {"loads", "dtypes"}),
        (("card-by-number", "dtype-dropped"), CARD, {"placement", "dtypes"}),
        (("weight-zeroed", "model-kept-alive"), CPU, {"values", "reload"}),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else None,
)
def test_two_planted_lines_are_two_problems(
    names: tuple[str, str], cell: Cell, roots: set[str], tmp_path: Path
) -> None:
    found = problems(tmp_path, (cell,), *(BY_NAME[name] for name in names))
    assert {problem.checks[0] for problem in found} == roots, "\n".join(said(found))
    assert len(found) == 2


def test_the_loader_without_a_fault_has_no_problem(tmp_path: Path) -> None:
    assert problems(tmp_path, (CPU, HALF, CARD)) == []


def test_there_are_forty_planted_lines_of_all_kinds() -> None:
    assert len(FAULTS) >= 40
    assert len({fault.name for fault in FAULTS}) == len({fault.planted for fault in FAULTS}) == len(FAULTS)
