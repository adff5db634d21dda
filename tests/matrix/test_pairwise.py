"""Covering arrays: every pair that can occur occurs, in few cells, the same ones everywhere."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from pytest_llmdevice.matrix.coverage import Pair, Point, pairs_of, pairwise
from pytest_llmdevice.matrix.expand import cells, load

SEEDS = range(60)


def all_pairs(points: tuple[Point, ...]) -> set[Pair]:
    return {pair for point in points for pair in pairs_of(point)}


def random_points(seed: int) -> tuple[Point, ...]:
    """A product of two to five axes of one to five values, of which up to nine in ten points are forbidden."""
    source = random.Random(seed)
    axes = [[f"{axis}{value}" for value in range(source.randint(1, 5))] for axis in range(source.randint(2, 5))]
    kept = source.uniform(0.1, 1.0)
    return tuple(point for point in product(*axes) if source.random() < kept)


def test_a_point_of_three_values_has_three_pairs() -> None:
    assert pairs_of(("a", "b", "c")) == {(0, "a", 1, "b"), (0, "a", 2, "c"), (1, "b", 2, "c")}


@pytest.mark.parametrize("seed", SEEDS)
def test_every_pair_of_an_allowed_point_is_covered(seed: int) -> None:
    allowed = random_points(seed)
    assert all_pairs(pairwise(allowed)) == all_pairs(allowed)


@pytest.mark.parametrize("seed", SEEDS)
def test_only_allowed_points_are_chosen_each_once_and_in_their_order(seed: int) -> None:
    allowed = random_points(seed)
    chosen = pairwise(allowed)
    assert list(chosen) == [point for point in allowed if point in set(chosen)]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_chosen_point_is_without_a_use_and_covered_pairs_are_not_asked_for_again(seed: int) -> None:
    allowed = random_points(seed)
    already = tuple(random.Random(seed).sample(allowed, len(allowed) // 4))
    chosen = pairwise(allowed, already)
    assert all_pairs(chosen + already) == all_pairs(allowed)
    assert len(chosen) <= len(all_pairs(allowed) - all_pairs(already))


def test_nothing_is_chosen_when_everything_is_covered() -> None:
    allowed = tuple(product("ab", "cd", "ef"))
    assert pairwise(allowed, allowed) == ()


def test_nothing_allowed_is_nothing_chosen() -> None:
    assert pairwise(()) == ()


def test_points_of_one_axis_are_all_chosen() -> None:
    assert pairwise((("a",), ("b",), ("a",))) == (("a",), ("b",))


def test_the_array_is_far_smaller_than_the_product() -> None:
    allowed = tuple(product("abcdefgh", "ijkl", "mnop", "qrst"))
    chosen = pairwise(allowed)
    # No array of these axes has fewer than 8 * 4 points; a good one is not much larger.
    assert 32 <= len(chosen) < 48 < len(allowed) / 10


def test_the_default_matrix_is_the_same_in_every_process() -> None:
    code = (
        "from pathlib import Path; from pytest_llmdevice.matrix.expand import cells, load; "
        "expand = lambda specs: [('cpu', 'cpu'), ('cuda', 'cuda:0'), ('cuda', 'cuda:1'), ('mps', 'mps')]; "
        "print(' '.join(cell.id for cell in cells(load('default', Path()), expand)))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }
    assert len(outputs) == 1
    assert len(outputs.pop().split()) > 100


MATRIX = """
coverage = "pairwise"
models = ["llama", "gpt2", "opt"]
devices = ["cpu"]
dtypes = ["float32", "bfloat16", "float16"]
strategies = ["to", "auto", "device-map"]
"""


def test_pairs_of_included_cells_are_not_run_a_second_time(tmp_path: Path) -> None:
    (tmp_path / "plain.toml").write_text(MATRIX)
    (tmp_path / "more.toml").write_text(MATRIX + "[[include]]\ndtypes = ['float32']\n")
    plain = cells(load("plain.toml", tmp_path), lambda _: [("cpu", "cpu")])
    more = cells(load("more.toml", tmp_path), lambda _: [("cpu", "cpu")])
    included = {cell for cell in more if cell.dtype == "float32"}
    assert len(plain) == 9
    # Included are 3 models by 3 strategies in float32, which leaves 2 dtypes for each model and strategy.
    assert len(included) == 9
    assert len(more) == 9 + 6


def test_each_kind_of_device_has_an_array_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "plain.toml").write_text(MATRIX)
    found = cells(load("plain.toml", tmp_path), lambda _: [("cpu", "cpu"), ("mps", "mps")])
    by_kind = {kind: {cell.id.replace(kind, "") for cell in found if cell.kind == kind} for kind in ("cpu", "mps")}
    assert by_kind["cpu"] == by_kind["mps"]
    assert len(by_kind["cpu"]) == 9
