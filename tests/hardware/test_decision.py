"""Verdicts: every cause, on machines that are not here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pytest_llmdevice.hardware import Decision, Device, Inventory, SmokeTest, decide
from pytest_llmdevice.matrix.cell import Cell

MakeDevice = Callable[..., Device]
MakeMachine = Callable[..., Inventory]

CPU = Cell("llama", "cpu", "float32")
CUDA = Cell("llama", "cuda:0", "float16")
ROCM = Cell("llama", "cuda:0", "float16", kind="rocm")

TWO = (Device("cuda:0", "cuda"), Device("cuda:1", "cuda"))
"""Cards that a simulation provides: nothing was tried on them."""


def test_a_cell_whose_device_passed_runs(this_machine: Inventory) -> None:
    assert decide(CPU, this_machine) == Decision("run")


def test_a_missing_device_is_absent_and_what_is_here_is_listed(machine: MakeMachine) -> None:
    decision = decide(CUDA, machine())
    assert decision == Decision("skip", "absent", "no cuda:0 here (this machine has cpu)")
    assert not decision.runs


def test_a_missing_index_is_absent(machine: MakeMachine, a100: Device) -> None:
    decision = decide(replace(CUDA, device="cuda:7"), machine(a100))
    assert decision.reason == "absent: no cuda:7 here (this machine has cpu, cuda:0)"


def test_a_card_hidden_by_an_environment_variable_is_absent_for_that_reason(machine: MakeMachine) -> None:
    decision = decide(CUDA, machine(visible={"CUDA_VISIBLE_DEVICES": ""}))
    assert decision.reason == "absent: no cuda:0 here (this machine has cpu; CUDA_VISIBLE_DEVICES=)"


def test_a_cuda_cell_does_not_run_on_a_rocm_card(machine: MakeMachine, mi300: Device) -> None:
    assert decide(CUDA, machine(mi300)).reason == (
        "absent: cuda:0 here is a ROCm card (gfx942, AMD Instinct MI300X): its cells are spelled rocm:0"
    )


def test_a_rocm_cell_does_not_run_on_an_nvidia_card(machine: MakeMachine, a100: Device) -> None:
    assert decide(ROCM, machine(a100)).reason == (
        "absent: cuda:0 here is an NVIDIA card (8.0, NVIDIA A100): its cells are spelled cuda:0"
    )


def test_a_rocm_cell_runs_on_a_rocm_card(machine: MakeMachine, mi300: Device) -> None:
    assert decide(ROCM, machine(mi300)) == Decision("run")


def test_an_mps_cell_runs_on_a_mac(machine: MakeMachine, device: MakeDevice) -> None:
    assert decide(Cell("llama", "mps", "float16"), machine(device("mps"))) == Decision("run")


def test_a_dtype_whose_probe_failed_is_unusable_with_the_exception(machine: MakeMachine, t4: Device) -> None:
    decision = decide(Cell("llama", "cuda:1", "bfloat16"), machine(t4))
    assert decision == Decision(
        "skip",
        "unusable",
        "cuda:1 NVIDIA T4 failed the bfloat16 probe: RuntimeError: expected scalar type BFloat16 but found Float",
    )


def test_another_dtype_of_the_same_card_runs(machine: MakeMachine, t4: Device) -> None:
    assert decide(Cell("llama", "cuda:1", "float16"), machine(t4)) == Decision("run")


def test_a_dtype_that_was_never_probed_does_not_run(machine: MakeMachine, device: MakeDevice) -> None:
    assert decide(CUDA, machine(device("cuda:0", dtypes={}))).reason.endswith("it was not probed")


def test_a_failed_probe_makes_every_cell_unusable() -> None:
    decision = decide(CPU, Inventory(failure="timed out after 120 s"))
    assert decision == Decision("skip", "unusable", "the hardware probe failed: timed out after 120 s")


def test_a_quantization_whose_probe_failed_is_unusable(machine: MakeMachine, device: MakeDevice) -> None:
    card = device("cuda:0", quantization={"nf4": SmokeTest(False, "RuntimeError: no kernel image is available")})
    decision = decide(replace(CUDA, quantization="nf4"), machine(card))
    assert decision.cause == "unusable"
    assert decision.reason == "unusable: cuda:0 failed the nf4 probe: RuntimeError: no kernel image is available"


def test_a_kernel_that_nobody_wrote_is_unsupported(machine: MakeMachine, device: MakeDevice) -> None:
    error = "NotImplementedError: no int8 on MPS"
    smoke_test = SmokeTest(False, error, {"float16": error}, unimplemented=("float16",))
    mac = device("mps", quantization={"int8": smoke_test})
    decision = decide(Cell("llama", "mps", "float16", "int8"), machine(mac))
    assert decision.cause == "unsupported"
    assert decision.reason == "unsupported: mps failed the int8 probe: NotImplementedError: no int8 on MPS"


def test_a_quantization_that_fails_for_one_dtype_stops_only_that_dtype(
    machine: MakeMachine, device: MakeDevice
) -> None:
    smoke_test = SmokeTest(True, failures={"float32": "RuntimeError: no float32"})
    here = machine(device("cuda:0", quantization={"int8": smoke_test}))
    assert decide(replace(CUDA, quantization="int8"), here) == Decision("run")
    decision = decide(replace(CUDA, quantization="int8", dtype="float32"), here)
    assert decision.reason == "unusable: cuda:0 failed the int8 probe: RuntimeError: no float32"


def test_a_quantized_cell_without_bitsandbytes_is_unsupported(machine: MakeMachine) -> None:
    decision = decide(replace(CPU, quantization="nf4"), machine(versions={}))
    assert decision == Decision(
        "skip",
        "unsupported",
        "bitsandbytes is not installed; install pytest-llmdevice[bitsandbytes]",
    )


def test_split_on_one_card_is_absent(machine: MakeMachine, a100: Device) -> None:
    decision = decide(replace(CUDA, strategy="split"), machine(a100))
    assert decision.cause == "absent"
    assert decision.reason == ("absent: strategy split needs two cuda cards that pass the float16 probe, here: cuda:0")


def test_split_runs_on_two_cards_that_pass_the_dtype(machine: MakeMachine, a100: Device, t4: Device) -> None:
    assert decide(replace(CUDA, strategy="split"), machine(a100, t4)) == Decision("run")


def test_split_does_not_count_a_card_that_fails_the_dtype(machine: MakeMachine, a100: Device, t4: Device) -> None:
    decision = decide(replace(CUDA, strategy="split", dtype="bfloat16"), machine(a100, t4))
    assert decision.cause == "absent"


def test_split_does_not_count_a_card_of_another_kind(machine: MakeMachine, a100: Device, device: MakeDevice) -> None:
    decision = decide(replace(CUDA, strategy="split"), machine(a100, device("xpu:0")))
    assert decision.cause == "absent"


@pytest.mark.parametrize("strategy", ["to", "device-map", "auto", "balanced", "sequential", "disk-offload"])
def test_every_other_strategy_runs_on_one_device(strategy: str, machine: MakeMachine) -> None:
    assert decide(replace(CPU, strategy=strategy), machine()) == Decision("run")


def test_a_simulated_cell_runs_simulated_without_the_hardware(machine: MakeMachine) -> None:
    simulated = Cell("llama", "cuda:1", "bfloat16", "nf4", "split", simulated=True)
    assert decide(simulated, machine(simulated_devices=TWO)) == Decision("run simulated")


def test_a_simulated_cell_without_a_simulated_device_is_absent(machine: MakeMachine) -> None:
    beyond = Cell("llama", "cuda:2", "float16", simulated=True)
    decision = decide(beyond, machine(simulated_devices=TWO))
    assert decision.reason == "absent: no cuda:2 here (this machine has cpu; simulated: cuda:0, cuda:1)"


def test_a_real_cell_does_not_run_on_a_simulated_device(machine: MakeMachine) -> None:
    assert decide(CUDA, machine(simulated_devices=TWO)).cause == "absent"


def test_split_on_one_simulated_card_is_absent(machine: MakeMachine) -> None:
    decision = decide(replace(CUDA, strategy="split", simulated=True), machine(simulated_devices=TWO[:1]))
    assert decision.cause == "absent"
    assert decision.reason == "absent: strategy split needs two cuda cards, simulated: cuda:0"


def test_a_simulated_cell_is_held_to_what_the_cpu_can_do(machine: MakeMachine, device: MakeDevice) -> None:
    weak = device("cpu", dtypes={"float16": SmokeTest(False, "RuntimeError: not implemented for 'Half'")})
    decision = decide(replace(CUDA, simulated=True), machine(devices=(weak,), simulated_devices=TWO))
    assert decision.reason == "unusable: cpu failed the float16 probe: RuntimeError: not implemented for 'Half'"


def test_a_simulated_cell_is_held_to_the_rules_of_the_libraries(machine: MakeMachine) -> None:
    cell = replace(CUDA, quantization="nf4", strategy="cpu-offload", simulated=True)
    decision = decide(cell, machine(simulated_devices=TWO))
    assert decision.cause == "unsupported"


def test_a_simulated_cell_does_not_run_after_a_failed_probe() -> None:
    assert decide(replace(CUDA, simulated=True), Inventory(failure="x", simulated_devices=TWO)).cause == "unusable"
