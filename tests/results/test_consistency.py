"""A file that contradicts itself is no evidence: it is refused with its line, whatever it claims."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from click.testing import CliRunner

from pytest_llmdevice.cli.command import command
from results.builder import CARD, CPU_BF16, CPU_FP32, ResultsBuilder

Lines: TypeAlias = list[dict[str, Any]]

RUN = ResultsBuilder(
    {CPU_FP32: {"dtypes": "passed", "tied": "passed"}, CPU_BF16: {"dtypes": "failed", "tied": "passed"}},
    skipped={CARD: ("absent", "absent: no card")},
)


def _cell(lines: Lines, cell: str) -> dict[str, Any]:
    return next(line for line in lines if line["type"] == "cell" and line["cell"] == cell)


def only_the_head(lines: Lines) -> None:
    del lines[1:]


def only_the_plan(lines: Lines) -> None:
    lines[:] = [line for line in lines if line["type"] in {"run", "end"}]


def part_of_the_plan(lines: Lines) -> None:
    lines.remove(next(line for line in lines if line["type"] == "planned" and line["cell"] == CARD.id))


def a_pass_without_checks(lines: Lines) -> None:
    lines[:] = [line for line in lines if not (line["type"] == "check" and line["cell"] == CPU_FP32.id)]


def a_pass_that_counts_no_checks(lines: Lines) -> None:
    a_pass_without_checks(lines)
    _cell(lines, CPU_FP32.id)["checks"] = {}


def a_failure_whose_checks_pass(lines: Lines) -> None:
    for line in lines:
        if line["type"] == "check" and line["cell"] == CPU_BF16.id and line["outcome"] == "failed":
            line["outcome"] = "passed"
            del line["failure"]


def a_pass_whose_check_fails(lines: Lines) -> None:
    cell = _cell(lines, CPU_BF16.id)
    cell["outcome"] = "passed"
    del cell["failure"]


def a_partial_cell_whose_check_fails(lines: Lines) -> None:
    cell = _cell(lines, CPU_BF16.id)
    cell["outcome"] = "partial"
    del cell["failure"]


def a_failing_cell_taken_out(lines: Lines) -> None:
    lines[:] = [line for line in lines if line["type"] not in {"check", "cell"} or line.get("cell") != CPU_BF16.id]


def a_check_behind_the_end(lines: Lines) -> None:
    lines.append(next(line for line in lines if line["type"] == "check"))


def a_check_that_is_partial(lines: Lines) -> None:
    next(line for line in lines if line["type"] == "check")["outcome"] = "partial"


WAYS: list[tuple[Callable[[Lines], None], int, str]] = [
    (only_the_head, 1, "the matrix has 3 cells, and 0 are planned in this file"),
    (only_the_plan, 1, "the matrix has 3 cells, and 0 are planned"),
    (part_of_the_plan, 1, "the matrix has 3 cells, and 2 are planned"),
    (a_pass_without_checks, 5, f"{CPU_FP32.id} is passed with 2 passed, and the lines before it have no checks"),
    (a_pass_that_counts_no_checks, 5, f"{CPU_FP32.id} is passed, and its checks are no checks"),
    (a_failure_whose_checks_pass, 10, f"{CPU_BF16.id} is failed with 1 failed, 1 passed"),
    (a_pass_whose_check_fails, 10, f"{CPU_BF16.id} is passed, and its checks are 1 failed, 1 passed"),
    (a_partial_cell_whose_check_fails, 10, f"{CPU_BF16.id} is partly run, and its checks are 1 failed"),
    (a_failing_cell_taken_out, 8, f"the run is ended, and {CPU_BF16.id}, which was to run, is not"),
    (a_check_behind_the_end, 12, "the run goes on after its end"),
    (a_check_that_is_partial, 5, "outcome: "),
]


@pytest.mark.parametrize(("change", "number", "words"), WAYS, ids=[change.__name__ for change, *_ in WAYS])
@pytest.mark.parametrize("name", ["show", "gate"])
def test_it_is_refused_with_file_and_line(
    tmp_path: Path, name: str, change: Callable[[Lines], None], number: int, words: str
) -> None:
    path = RUN.write(tmp_path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    called = CliRunner().invoke(command, [name, str(tmp_path)])
    assert called.exit_code == 2
    assert f"{path.name}:{number}: " in called.output
    assert words in " ".join(called.output.split())


def test_what_a_run_wrote_is_read(tmp_path: Path) -> None:
    RUN.write(tmp_path)
    assert CliRunner().invoke(command, ["show", str(tmp_path)]).exit_code == 0
