from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from results.builder import CARD, CPU_BF16, CPU_FP32, SIMULATED, ResultsBuilder

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.report.folding import folded, without_attention
from pytest_llmdevice.report.grid import ALL, Grid, blank, grids, labels
from pytest_llmdevice.report.order import in_order
from pytest_llmdevice.report.outcomes import LETTERS, Mark
from pytest_llmdevice.report.spec import DEFAULT, parse_grid
from pytest_llmdevice.results.merged_results import MergedResults, merge_runs
from pytest_llmdevice.results.vocabulary import CheckOutcome

ABSENT = ("absent", "absent: no cuda:0 here")


def merged(folder: Path, outcomes: Mapping[Cell, CheckOutcome], **values: Any) -> MergedResults:
    made = ResultsBuilder({cell: {"dtypes": outcome} for cell, outcome in outcomes.items()}, **values)
    return merge_runs([made.file(folder)])


def one(found: MergedResults, spec: str | None = None) -> Grid:
    (grid,) = grids(found, parse_grid(spec) if spec else DEFAULT)
    return grid


def drawn(grid: Grid) -> dict[tuple[str, ...], list[str]]:
    """The letters of each row by its label."""
    rows = zip(labels(list(grid.rows)), grid.rows.values(), strict=True)
    return {
        label: [entries[column].letters if column in entries else "" for column in grid.columns]
        for label, entries in rows
    }


def llama(device: str, dtype: str = "float32", strategy: str = "to", **values: Any) -> Cell:
    return Cell(values.pop("model", "llama"), device, dtype, strategy=strategy, **values)


def test_rows_are_models_and_strategies_and_columns_devices_and_dtypes(tmp_path: Path) -> None:
    cells = [
        Cell(model, device, dtype, quantization, strategy)
        for model in ("llama", "opt")
        for device in ("cpu", "cuda:0")
        for dtype in ("float32", "bfloat16")
        for quantization in ("none", "nf4")
        for strategy in ("to", "auto")
    ]
    grid = one(merged(tmp_path, dict.fromkeys(cells, "passed")))
    assert labels(list(grid.rows)) == [("llama", "to"), ("llama", "auto"), ("opt", "to"), ("opt", "auto")]
    assert labels(grid.columns)[:3] == [("cpu", "fp32", "none"), ("cpu", "fp32", "nf4"), ("cpu", "bf16", "none")]
    assert len(grid.columns) == 8


def test_an_axis_with_one_value_is_in_the_title(tmp_path: Path) -> None:
    grid = one(merged(tmp_path, {CPU_FP32: "passed", CPU_BF16: "failed"}))
    assert (grid.row_axes, grid.column_axes) == (("model",), ("dtype",))
    assert grid.title == "in all: device cpu, quantization none, strategy to"


def test_a_place_of_several_cells_shows_the_worst_and_how_many(tmp_path: Path) -> None:
    cells: dict[Cell, CheckOutcome] = {
        llama("cpu", strategy="to"): "passed",
        llama("cpu", strategy="auto"): "failed",
        llama("cpu", strategy="device-map"): "passed",
    }
    grid = one(merged(tmp_path, cells), "model/device")
    assert drawn(grid) == {("llama",): ["F1/3"]}
    assert grid.summarized == ("strategy",)


def test_a_cell_that_did_not_run_is_not_counted_as_a_pass(tmp_path: Path) -> None:
    cells: dict[Cell, CheckOutcome] = {llama("cpu", strategy="to"): "passed", llama("cpu", strategy="auto"): "skipped"}
    assert drawn(one(merged(tmp_path, cells), "model/device")) == {("llama",): [".1/2"]}


def test_a_simulated_pass_has_another_letter_than_a_real_one(tmp_path: Path) -> None:
    assert drawn(one(merged(tmp_path, {CPU_FP32: "passed", SIMULATED: "passed"})))["llama",] == [".", ".~"]


def test_of_a_real_and_a_simulated_pass_the_simulated_one_is_shown(tmp_path: Path) -> None:
    cells: dict[Cell, CheckOutcome] = {CPU_BF16: "passed", SIMULATED: "passed"}
    assert drawn(one(merged(tmp_path, cells), "model/dtype")) == {("llama",): [".~1/2"]}


def test_each_outcome_has_a_letter_of_its_own() -> None:
    assert len(set(LETTERS.values())) == len(LETTERS)
    assert len({Mark(outcome, sim).letter for outcome in LETTERS for sim in (False, True)}) == 2 * len(LETTERS)


def test_a_device_that_ran_nothing_is_no_column(tmp_path: Path) -> None:
    grid = one(merged(tmp_path, {CPU_FP32: "passed"}, skipped={CARD: ABSENT}))
    assert labels(grid.columns) == [("cpu",)]


def test_a_cell_that_nobody_asked_for_is_blank_and_the_legend_says_so(tmp_path: Path) -> None:
    cells: dict[Cell, CheckOutcome] = {CPU_FP32: "passed", replace(CPU_BF16, model="opt"): "passed"}
    left_out = {CPU_BF16: ("not requested", "not requested: --llm-cell")}
    found = merged(tmp_path, cells, skipped=left_out)
    grid = one(found)
    assert drawn(grid) == {("llama",): [".", ""], ("opt",): ["", "."]}
    assert blank(found, [grid]) == "no such cell, or not requested"


def test_a_target_that_ran_nothing_has_no_grid(tmp_path: Path) -> None:
    assert grids(merged(tmp_path, {}, skipped={CARD: ABSENT}), DEFAULT) == []


def test_each_target_has_a_grid(tmp_path: Path) -> None:
    first = ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}).file(tmp_path)
    second = ResultsBuilder({CPU_FP32: {"dtypes": "failed"}}, target="mine:loader", name="other").file(tmp_path)
    assert [grid.target for grid in grids(merge_runs([first, second]), DEFAULT)] == ["builtin", "mine:loader"]


def test_a_rocm_card_is_not_a_cuda_card(tmp_path: Path) -> None:
    cells: dict[Cell, CheckOutcome] = {llama("cuda:0"): "passed", llama("cuda:0", kind="rocm"): "failed"}
    grid = one(merged(tmp_path, cells))
    assert [label[0] for label in labels(grid.columns)] == ["cuda:0", "rocm:0"]


def test_values_are_in_the_order_of_the_matrix_where_few_cells_tell_it() -> None:
    points = [("a", "2"), ("a", "3"), ("b", "1"), ("b", "2")]
    assert in_order(points, 1) == ["1", "2", "3"]


def test_an_order_that_contradicts_itself_is_that_of_appearance() -> None:
    points = [("a", "2"), ("a", "1"), ("b", "1"), ("b", "2")]
    assert in_order(points, 1) == ["2", "1"]


def test_rows_that_say_the_same_are_one_where_there_are_many(tmp_path: Path) -> None:
    strategies = ("to", "device-map", "auto", "balanced", "sequential")
    cells: dict[Cell, CheckOutcome] = {
        llama("cpu", strategy=strategy, model=f"path:m{number}"): "passed"
        for number in range(12)
        for strategy in strategies
    }
    cells[llama("cpu", strategy="auto", model="path:m3")] = "failed"
    grid = folded(one(merged(tmp_path, cells)), narrow=lambda _: True, bearable=lambda _: True)
    shown = drawn(grid)
    assert len(shown) == 13
    assert shown["path:m0", ALL] == ["."]
    assert shown["path:m3", "4 others"] == ["."]
    assert shown["path:m3", "auto"] == ["F"]


def test_folding_loses_no_cell_and_no_outcome(tmp_path: Path) -> None:
    outcomes: tuple[CheckOutcome, ...] = ("passed", "passed", "failed", "xfail", "passed", "hollow", "passed")
    cells = {
        Cell(f"path:m{model}", device, dtype, strategy=strategy): outcomes[(model * 5 + number) % 7]
        for model in range(20)
        for number, (device, dtype, strategy) in enumerate(
            (device, dtype, strategy)
            for device in ("cpu", "cuda:0")
            for dtype in ("float32", "bfloat16")
            for strategy in ("to", "auto", "balanced")
        )
    }
    whole = one(merged(tmp_path, cells))
    small = folded(whole, narrow=lambda grid: len(grid.columns) < 2, bearable=lambda grid: len(grid.columns) < 3)
    assert len(small.columns) < len(whole.columns)
    assert counted(small) == counted(whole)


def counted(grid: Grid) -> dict[Mark, int]:
    found: dict[Mark, int] = {}
    for entry in grid.entries:
        for mark, count in entry.marks:
            found[mark] = found.get(mark, 0) + count
    return found


def test_a_failure_keeps_a_row_of_its_own(tmp_path: Path) -> None:
    cells: dict[Cell, CheckOutcome] = {
        llama("cpu", dtype, strategy, model=f"path:m{number}"): "passed"
        for number in range(30)
        for dtype, strategy in (("float32", "to"), ("bfloat16", "auto"))
    }
    cells[llama("cpu", "float32", "to", model="path:m0")] = "failed"
    grid = folded(one(merged(tmp_path, cells)), narrow=lambda _: True, bearable=lambda _: True)
    # Merged with the row of `auto`, it would be read as a failure of both.
    assert drawn(grid)["path:m0", "to"] == ["F", ""]
    assert drawn(grid)["path:m1", "to+auto"] == [".", "."]


def test_a_simulated_pass_is_never_merged_with_a_real_one(tmp_path: Path) -> None:
    cells: dict[Cell, CheckOutcome] = {
        llama("cuda:0", model=f"path:m{number}", strategy=strategy, simulated=strategy == "auto"): "passed"
        for number in range(30)
        for strategy in ("to", "auto")
    }
    grid = folded(one(merged(tmp_path, cells)), narrow=lambda _: True, bearable=lambda _: True)
    assert {text for letters in drawn(grid).values() for text in letters} == {".", ".~"}


def test_attention_is_an_axis_only_where_it_makes_a_difference(tmp_path: Path) -> None:
    alike: dict[Cell, CheckOutcome] = {
        llama("cpu", attention=attention, model=model): "passed"
        for model in ("llama", "opt")
        for attention in ("eager", "sdpa")
    }
    grid = without_attention(one(merged(tmp_path / "alike", alike)))
    assert grid.row_axes == ("model",)
    assert "attention makes no difference" in grid.title
    alike[llama("cpu", attention="sdpa")] = "failed"
    assert without_attention(one(merged(tmp_path / "not", alike))).row_axes == ("model", "attention")


def test_a_grid_is_asked_for_by_the_axes_of_rows_and_columns() -> None:
    spec = parse_grid(" model , strategy / device,dtype ")
    assert (spec.rows, spec.columns) == (("model", "strategy"), ("device", "dtype"))
    assert spec.summarized == ("quantization", "attention")
    assert str(spec) == "model,strategy/device,dtype"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model", "name the axes of the rows, a slash, and those of the columns"),
        ("/device", "name the axes of the rows, a slash, and those of the columns"),
        ("model/device/dtype", "name the axes of the rows, a slash, and those of the columns"),
        ("model/devise", "unknown axis 'devise'; did you mean 'device'?"),
        ("model/device,model", "the axis 'model' is there twice"),
        ("mo\ndel\x1b[31m/device", r"unknown axis 'mo del\\x1b[31m'"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_in_one_sentence(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_grid(text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
