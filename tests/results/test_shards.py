"""Cells are dealt out to machines evenly, and in the same way on each."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.results.shards import Shard, assigned, estimates, parse_shard, recorded_seconds, shards
from results.builder import CARD, CPU_BF16, CPU_FP32, ResultsBuilder, many_cells

CELLS = many_cells(1_200)
CPU = [cell for cell in CELLS if cell.kind == "cpu"]


def times(cells: list[Cell], seed: int = 1) -> dict[str, float]:
    drawn = random.Random(seed)
    return {cell.id: 0.1 + drawn.expovariate(1) for cell in cells}


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 2_000])
@pytest.mark.parametrize("seconds", [{}, times(CELLS)], ids=["alike", "recorded"])
def test_every_cell_is_in_exactly_one_part(count: int, seconds: dict[str, float]) -> None:
    parts = shards(CELLS, count, seconds)

    assert len(parts) == count
    assert sorted(cell.id for part in parts for cell in part) == sorted(cell.id for cell in CELLS)


@pytest.mark.parametrize("seconds", [{}, times(CELLS)], ids=["alike", "recorded"])
def test_the_order_of_the_cells_does_not_matter(seconds: dict[str, float]) -> None:
    shuffled = list(CELLS)
    random.Random(2).shuffle(shuffled)

    assert shards(shuffled, 5, seconds) == shards(CELLS, 5, seconds)


def test_processes_with_other_hashes_deal_out_alike() -> None:
    code = (
        "from itertools import product; from pytest_llmdevice.matrix.cell import Cell;"
        "from pytest_llmdevice.results.shards import shards;"
        "points = product(['llama', 'gpt2', 'opt'], ['cpu', 'cuda:0'], ['float32', 'float16']);"
        "cells = {Cell(*point) for point in points};"
        "print([[cell.id for cell in part] for part in shards(cells, 3)])"
    )
    outputs = {
        subprocess.check_output([sys.executable, "-c", code], text=True, env={"PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    }

    assert len(outputs) == 1


def test_a_machine_that_simulates_the_cards_deals_out_alike() -> None:
    simulated_on = [replace(cell, simulated=cell.kind == "cuda") for cell in CELLS]

    parts = shards(simulated_on, 4)

    assert [[replace(cell, simulated=False) for cell in part] for part in parts] == shards(CELLS, 4)


def test_a_machine_with_other_cards_deals_out_the_cpu_alike() -> None:
    mixed = shards(CELLS, 4)

    assert [[cell for cell in part if cell.kind == "cpu"] for part in mixed] == shards(CPU, 4)


def test_what_runs_on_one_kind_of_device_is_spread_over_all_parts() -> None:
    counts = [sum(cell.kind == "cpu" for cell in part) for part in shards(CELLS, 5)]

    assert max(counts) <= math.ceil(1.05 * len(CPU) / 5)
    assert min(counts) > 0


def test_what_is_left_over_of_each_kind_goes_to_another_part() -> None:
    cells = [CPU_FP32, CARD, replace(CARD, kind="rocm")]

    assert [len(part) for part in shards(cells, 3)] == [1, 1, 1]


@pytest.mark.parametrize("count", [2, 3, 5, 16])
def test_parts_take_about_as_long_as_each_other_by_the_recorded_times(count: int) -> None:
    seconds = times(CPU)

    lengths = [sum(seconds[cell.id] for cell in part) for part in shards(CPU, count, seconds)]

    assert max(lengths) <= 1.05 * sum(seconds.values()) / count


def test_one_long_cell_has_a_part_of_its_own() -> None:
    cells = many_cells(9)
    seconds = {cell.id: 1.0 for cell in cells} | {cells[0].id: 100.0}

    parts = shards(cells, 3, seconds)

    assert [cells[0]] in parts


def test_no_part_is_empty_while_there_are_cells_enough() -> None:
    cells = [CPU_FP32, CPU_BF16, replace(CPU_BF16, dtype="float16")]

    parts = shards(cells, 3, {CPU_FP32.id: 1000.0, CPU_BF16.id: 1.0})

    assert sorted(map(len, parts)) == [1, 1, 1]


def test_cells_of_one_model_stay_together_where_that_costs_nothing() -> None:
    models = ("llama", "gpt2", "opt", "bloom")
    cells = [Cell(model, "cpu", dtype) for model in models for dtype in ("float32", "bfloat16", "float16")]

    parts = shards(cells, 2)

    assert sorted(len({cell.model for cell in part}) for part in parts) == [2, 2]
    assert [len(part) for part in parts] == [6, 6]


def test_a_cell_without_a_time_takes_the_median_of_its_kind_model_and_quantization() -> None:
    known = [Cell("llama", "cpu", dtype, strategy=how) for dtype, how in (("float32", "to"), ("float16", "to"))]
    third = Cell("llama", "cpu", "float32", strategy="auto")
    other = Cell("gpt2", "cpu", "float32")
    seconds = {known[0].id: 2.0, known[1].id: 4.0, third.id: 90.0, other.id: 1000.0}
    unknown = Cell("llama", "cpu", "bfloat16")

    assert estimates([*known, third, other, unknown], seconds)[unknown] == 4.0


def test_a_cell_of_a_model_that_never_ran_takes_the_median_of_its_kind() -> None:
    known = [Cell("llama", "cpu", "float32"), Cell("llama", "cpu", "float16")]
    unknown = Cell("t5", "cpu", "float32", "int8")

    assert estimates([*known, unknown], {known[0].id: 2.0, known[1].id: 4.0})[unknown] == 3.0


def test_without_any_time_all_cells_count_the_same() -> None:
    assert set(estimates(CELLS, {}).values()) == {1.0}


def test_a_simulated_time_stands_in_for_one_on_hardware() -> None:
    assert estimates([CARD], {f"{CARD.id}.sim": 7.0})[CARD] == 7.0


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_a_time_that_measured_nothing_is_none(bad: float) -> None:
    assert estimates([CPU_FP32, CPU_BF16], {CPU_FP32.id: bad, CPU_BF16.id: 3.0})[CPU_FP32] == 3.0


def test_recorded_times_are_the_median_over_the_runs(tmp_path: Path) -> None:
    files = [
        ResultsBuilder(
            {CPU_FP32: {"loads": "passed"}, CPU_BF16: {"loads": "skipped"}},
            changes={CPU_FP32: {"seconds": seconds}},
            name=f"20261125T10000{number}Z-aaaaaa",
        ).file(tmp_path)
        for number, seconds in enumerate((1.0, 2.0, 60.0))
    ]

    assert recorded_seconds(files) == {CPU_FP32.id: 2.0}


def test_a_shard_has_its_cells_in_their_order_and_says_where_the_others_are() -> None:
    cells = list(reversed(many_cells(30)))
    shard = Shard.parse("2/3")

    own, others = shard.cells(cells), shard.others(cells)

    assert list(own) == [cell for cell in cells if cell in own]
    assert set(own) | set(others) == set(cells)
    assert not set(own) & set(others)
    assert set(others.values()) == {"it belongs to shard 1/3", "it belongs to shard 3/3"}


def test_all_shards_together_have_every_cell_once() -> None:
    parts = [Shard(index, 4).cells(CELLS) for index in range(1, 5)]

    assert sorted(cell.id for part in parts for cell in part) == sorted(cell.id for cell in CELLS)
    assert set(assigned(CELLS, 4).values()) == {Shard(index, 4) for index in range(1, 5)}


@pytest.mark.parametrize(("text", "shard"), [("2/5", (2, 5)), ("1/1", (1, 1)), (" 5 / 5 ", (5, 5))])
def test_a_shard_is_read_from_its_index_and_count(text: str, shard: tuple[int, int]) -> None:
    assert parse_shard(text) == shard


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0/5", r"shard '0/5': the parts are counted from 1/5 to 5/5"),
        ("6/5", r"shard '6/5': the parts are counted from 1/5 to 5/5"),
        ("2/0", r"shard '2/0': there must be at least one part, as in 1/1"),
        ("x", r"shard 'x' is not INDEX/COUNT, such as 2/5 for the second of five parts"),
        ("", r"is not INDEX/COUNT"),
        ("-1/5", r"is not INDEX/COUNT"),
        ("1/2/3", r"is not INDEX/COUNT"),
        ("²/5", r"is not INDEX/COUNT"),
        ("1/99999999999", r"is not INDEX/COUNT"),
    ],
)
def test_what_is_no_shard_is_refused_with_a_sentence(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_shard(text)
