"""Which hardware and versions two outcomes must have in common to be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.results.environments import Environment, Environments
from pytest_llmdevice.results.run_header import Machine, MachineDevice, Run
from results.builder import CARD, CPU_FP32, CUDA, LAPTOP, SIMULATED, VERSIONS, ResultsBuilder

QUANTIZED = Cell("llama", "cpu", "float32", "int8")


def run(machine: Machine = LAPTOP, versions: Mapping[str, str] | None = None) -> Run:
    found = ResultsBuilder(
        {}, machine=machine, versions=VERSIONS | dict(versions or {}), simulated=["cuda-t4:2"]
    ).records()[0]
    assert isinstance(found, Run)
    return found


def test_a_cell_of_a_card_ran_on_the_card_and_one_of_the_cpu_on_the_processor() -> None:
    assert Environment.of(CARD, run(CUDA)).hardware == "cuda:NVIDIA H100"
    assert Environment.of(CPU_FP32, run(CUDA)).hardware == "Server CPU"


def test_a_simulated_cell_ran_on_the_processor_and_simulated_a_machine() -> None:
    found = Environment.of(SIMULATED, run())
    assert (found.hardware, found.simulated_on) == ("Some CPU", "cuda-t4:2")
    assert Environment.of(CARD, run(CUDA)).simulated_on == ""


def test_a_card_of_another_kind_is_other_hardware_even_under_one_name() -> None:
    machine = Machine(devices=(MachineDevice(spec="rocm:0", name="Card"), MachineDevice(spec="cuda:0", name="Card")))
    rocm = Cell("llama", "cuda:0", "bfloat16", kind="rocm")
    assert Environment.of(rocm, run(machine)).differences(Environment.of(CARD, run(machine))) == [
        "rocm:Card -> cuda:Card"
    ]


@pytest.mark.parametrize(
    ("cell", "versions", "differences"),
    [
        (CPU_FP32, {"torch": "2.14.0"}, ["torch 2.13.0 -> 2.14.0"]),
        (CPU_FP32, {"python": "3.11.9"}, []),
        (CPU_FP32, {"python": "3.12.1"}, ["python 3.11 -> 3.12"]),
        (CPU_FP32, {"bitsandbytes": "0.51"}, []),
        (QUANTIZED, {"bitsandbytes": "0.51"}, ["bitsandbytes 0.50.2 -> 0.51"]),
        (CPU_FP32, {"driver": "600"}, []),
        (CARD, {"driver": "600"}, ["driver absent -> 600"]),
        (CPU_FP32, {"numpy": "3"}, []),
    ],
)
def test_versions_differ_where_the_cell_depends_on_them(
    cell: Cell, versions: dict[str, str], differences: list[str]
) -> None:
    before, after = Environment.of(cell, run()), Environment.of(cell, run(versions=versions))
    assert before.differences(after) == differences
    assert (before == after) == (not differences)


def test_each_environment_is_worked_out_once() -> None:
    known = Environments()
    first = run()
    assert known.of(CPU_FP32, first) is known.of(replace(CPU_FP32, model="gpt2"), first)
    assert known.of(CPU_FP32, first) != known.of(QUANTIZED, first)


def test_a_card_that_the_machine_does_not_list_is_unknown_hardware() -> None:
    found = Environment.of(CARD, run(LAPTOP))
    assert found.differences(Environment.of(CARD, run(CUDA))) == ["cuda: -> cuda:NVIDIA H100"]
