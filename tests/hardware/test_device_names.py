"""Devices by name: expansion, requirements, descriptions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.hardware import (
    Cpu,
    Device,
    Inventory,
    SmokeTest,
    describe,
    expand_devices,
    required_missing,
)

MakeDevice = Callable[..., Device]
MakeMachine = Callable[..., Inventory]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("cpu", ("cpu", "cpu")),
        ("mps", ("mps", "mps")),
        ("cuda", ("cuda", "cuda:0")),
        ("cuda:1", ("cuda", "cuda:1")),
        ("cuda:*", ("cuda", "cuda:0")),
        ("rocm", ("rocm", "cuda:0")),
        ("rocm:1", ("rocm", "cuda:1")),
        ("rocm:*", ("rocm", "cuda:0")),
        ("xpu:*", ("xpu", "xpu:0")),
    ],
)
@pytest.mark.parametrize("inventory", [None, Inventory(failure="crashed")])
def test_a_name_expands_without_any_hardware(spec: str, expected: tuple[str, str], inventory: Inventory | None) -> None:
    assert expand_devices([spec], inventory) == (expected,)


def test_a_star_expands_to_every_card_of_its_kind(machine: MakeMachine, a100: Device, t4: Device) -> None:
    here = machine(a100, t4)
    assert expand_devices(["cuda:*"], here) == (("cuda", "cuda:0"), ("cuda", "cuda:1"))
    assert expand_devices(["rocm:*"], here) == (("rocm", "cuda:0"),)


def test_a_star_expands_to_a_card_that_is_unusable_too(machine: MakeMachine, device: MakeDevice) -> None:
    here = machine(device("cuda:0"), device("cuda:1", dtypes={}))
    assert expand_devices(["cuda:*"], here) == (("cuda", "cuda:0"), ("cuda", "cuda:1"))


def test_expansion_keeps_the_order_and_drops_repetitions(machine: MakeMachine, a100: Device) -> None:
    found = expand_devices(["cuda:1", "cpu", "cuda:*", "cuda", "cpu"], machine(a100))
    assert found == (("cuda", "cuda:1"), ("cpu", "cpu"), ("cuda", "cuda:0"))


def test_a_rocm_card_and_a_cuda_card_of_the_same_spelling_are_two_devices() -> None:
    assert expand_devices(["cuda:0", "rocm:0"], None) == (("cuda", "cuda:0"), ("rocm", "cuda:0"))


def test_simulated_cards_are_expanded_beside_the_real_ones(machine: MakeMachine, mi300: Device) -> None:
    simulated_devices = tuple(Device(f"cuda:{index}", "cuda") for index in range(3))
    here = machine(mi300, simulated_devices=simulated_devices)
    assert expand_devices(["cuda:*"], here) == tuple(("cuda", f"cuda:{index}") for index in range(3))
    assert expand_devices(["rocm:*", "xpu:*"], here) == (("rocm", "cuda:0"), ("xpu", "xpu:0"))


def test_a_simulated_device_does_not_meet_a_requirement(machine: MakeMachine) -> None:
    assert required_missing(["cuda"], machine(simulated_devices=(Device("cuda:0", "cuda"),))) == (
        "required cuda is missing: this machine has cpu (cuda:0 simulated, which does not count)"
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cud:0", r"unknown device 'cud:0'; did you mean 'cuda:N'\? \(valid: cpu, cuda"),
        ("mps:0", "device 'mps:0' cannot have an index; did you mean 'mps'"),
        ("cuda:x", r"device 'cuda:x' has the index 'x' \(valid: a number, or '\*'"),
        ("cuda:", "has the index ''"),
        ("cuda:-1", "has the index '-1'"),
        ("cuda:\u0661", "has the index '\u0661'"),
        ("", "unknown device ''"),
    ],
)
def test_a_name_that_is_no_device_is_refused_with_what_is_valid(spec: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        expand_devices([spec], None)
    with pytest.raises(ConfigurationError, match=message):
        required_missing([spec], Inventory())


@pytest.mark.parametrize("spec", ["cpu", "cuda", "cuda:0", "cuda:1", "cuda:*"])
def test_a_required_device_that_is_here_is_not_missing(
    spec: str, machine: MakeMachine, a100: Device, t4: Device
) -> None:
    assert required_missing([spec], machine(a100, t4)) is None


def test_what_is_missing_is_named_with_what_is_here(machine: MakeMachine, a100: Device) -> None:
    assert required_missing(["cuda:0", "cuda:2", "mps"], machine(a100)) == (
        "required cuda:2 and mps are missing: this machine has cpu, cuda:0 (NVIDIA A100)"
    )


def test_a_card_that_fails_every_probe_does_not_meet_a_requirement(machine: MakeMachine, device: MakeDevice) -> None:
    broken = device("cuda:0", name="T4", dtypes={"float32": SmokeTest(False, "RuntimeError: CUDA error")})
    assert required_missing(["cuda"], machine(broken)) == (
        "required cuda is missing: this machine has cpu, cuda:0 (T4, unusable: RuntimeError: CUDA error)"
    )


def test_a_rocm_card_does_not_meet_a_requirement_for_cuda(machine: MakeMachine, mi300: Device) -> None:
    here = machine(mi300)
    assert required_missing(["rocm", "rocm:0"], here) is None
    assert required_missing(["cuda"], here) == (
        "required cuda is missing: this machine has cpu, rocm:0 (AMD Instinct MI300X)"
    )


def test_nothing_is_here_after_a_failed_probe() -> None:
    assert required_missing(["cpu"], Inventory(failure="timed out after 9 s")) == (
        "required cpu is missing: the hardware probe failed: timed out after 9 s"
    )


def test_each_device_is_described_in_one_line(machine: MakeMachine, a100: Device, mi300: Device) -> None:
    here = machine(a100, cpu=Cpu(name="EPYC", logical=4, physical=2))
    assert describe(here) == [
        "cpu: unknown model, 2 cores, 16 GiB, float32 bfloat16 float16, int8 nf4 nf4-double fp4",
        "cuda:0: NVIDIA A100, compute capability 8.0, 80 GiB, float32 bfloat16 float16, int8 nf4 nf4-double fp4",
    ]
    assert describe(machine(mi300))[1].startswith("rocm:0: AMD Instinct MI300X, gfx942, 16 GiB")


def test_an_unusable_device_is_described_with_its_error(machine: MakeMachine, device: MakeDevice) -> None:
    broken = device("cuda:0", name="T4", dtypes={"float32": SmokeTest(False, "RuntimeError: CUDA error")})
    assert describe(machine(broken))[1] == "cuda:0: T4, 16 GiB, unusable: RuntimeError: CUDA error"


def test_a_failed_probe_is_described() -> None:
    assert describe(Inventory(failure="crashed")) == ["hardware probe failed: crashed"]


def test_this_machine_is_described(this_machine: Inventory) -> None:
    lines = describe(this_machine)
    assert len(lines) == len(this_machine.devices)
    assert lines[0].startswith("cpu: ")
    assert "float32" in lines[0]
