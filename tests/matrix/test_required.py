"""`[require]`: which coverage is missing from a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.required import missing
from pytest_llmdevice.matrix.schema import Require

CPU = Cell("llama", "cpu", "float32")
CARD = Cell("llama", "cuda:0", "float16", "nf4")
SECOND_CARD = Cell("gpt2", "cuda:1", "float16")
ROCM = Cell("gpt2", "cuda:0", "bfloat16", kind="rocm")
CELLS = (CPU, CARD, SECOND_CARD, ROCM)


def lines(require: dict[str, list[str]], *passed: Cell) -> list[str]:
    return missing(Require.model_validate(require), CELLS, lambda cell: cell in passed)


def test_nothing_is_missing_when_every_value_has_a_cell_that_passed() -> None:
    require = {"models": ["llama", "gpt2"], "devices": ["cpu", "cuda:0", "rocm:0"], "quantization": ["nf4"]}
    assert lines(require, CPU, CARD, ROCM) == []


def test_a_value_whose_cells_did_not_pass_is_missing() -> None:
    assert lines({"devices": ["cpu", "cuda:1"]}, CPU) == ["device cuda:1: none of its 1 cells passed on real hardware"]


def test_a_value_that_no_cell_has_is_missing() -> None:
    assert lines({"quantization": ["int8"]}, *CELLS) == [
        "quantization int8: none of its 0 cells passed on real hardware"
    ]


def test_a_pattern_stands_for_each_value_that_the_matrix_has() -> None:
    assert lines({"devices": ["cuda:*"]}, CARD) == ["device cuda:1: none of its 1 cells passed on real hardware"]


def test_a_pattern_that_fits_nothing_is_missing_as_it_is() -> None:
    assert lines({"devices": ["xpu:*"]}, *CELLS) == ["device xpu:*: none of its 0 cells passed on real hardware"]


@pytest.mark.parametrize(
    ("passed", "spec"), [(ROCM, "cuda:0"), (CARD, "rocm:0")], ids=["rocm for cuda", "cuda for rocm"]
)
def test_a_card_of_one_maker_does_not_stand_in_for_the_others(passed: Cell, spec: str) -> None:
    assert lines({"devices": [spec]}, passed) == [f"device {spec}: none of its 1 cells passed on real hardware"]


def test_a_simulated_pass_is_missing_and_said_to_be_one() -> None:
    pretended = replace(SECOND_CARD, simulated=True)
    require = Require.model_validate({"devices": ["cuda:*"], "models": "gpt2"})
    assert missing(require, (CARD, pretended), lambda _: True) == [
        "model gpt2: none of its 1 cells passed on real hardware, 1 passed only simulated",
        "device cuda:1: none of its 1 cells passed on real hardware, 1 passed only simulated",
    ]
    assert missing(require, (CARD, pretended), lambda cell: not cell.simulated)[1:] == [
        "device cuda:1: none of its 1 cells passed on real hardware"
    ]


def test_each_missing_value_has_a_line() -> None:
    found = lines({"models": ["*"], "dtypes": ["float32", "float16"]})
    assert [line.partition(":")[0] for line in found] == [
        "model llama",
        "model gpt2",
        "dtype float32",
        "dtype float16",
    ]
