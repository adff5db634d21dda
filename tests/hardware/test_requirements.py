"""Needs of a single test: memory sizes, devices, capability, kinds, packages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.hardware import Device, Inventory, Requirements, parse_memory, unmet
from pytest_llmdevice.matrix.cell import Cell

MakeMachine = Callable[..., Inventory]

CUDA = Cell("llama", "cuda:0", "float16")
T4 = Cell("llama", "cuda:1", "float16")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8GiB", 8 * 2**30),
        ("16GB", 16 * 10**9),
        ("512MiB", 512 * 2**20),
        (" 1.5 gib ", 3 * 2**29),
        ("100B", 100),
    ],
)
def test_a_memory_size_is_read_as_bytes(text: str, expected: int) -> None:
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["8", "GiB", "", "-1GiB", "8 GiB RAM", "1e3MB"])
def test_a_size_without_number_or_unit_is_refused_with_the_units(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is not a number with a unit.*valid units: B, kB, MB, GB"):
        parse_memory(text)


def test_an_unknown_unit_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"'8GiP': unknown unit 'GiP'; did you mean 'GiB'\?"):
        parse_memory("8GiP")


def test_no_needs_are_met_by_any_present_device(machine: MakeMachine, a100: Device) -> None:
    assert unmet(Requirements(), CUDA, machine(a100)) is None


def test_two_devices_are_counted_by_kind_and_dtype(machine: MakeMachine, a100: Device, t4: Device) -> None:
    here = machine(a100, t4)
    assert unmet(Requirements(devices=2), CUDA, here) is None
    assert unmet(Requirements(devices=2), Cell("llama", "cuda:0", "bfloat16"), here) == (
        "needs 2 cuda devices that pass bfloat16, here: cuda:0"
    )


def test_memory_is_that_of_the_cells_device(machine: MakeMachine, a100: Device, t4: Device) -> None:
    requirements = Requirements(memory=parse_memory("40GiB"))
    assert unmet(requirements, CUDA, machine(a100, t4)) is None
    assert unmet(requirements, T4, machine(a100, t4)) == "needs 40 GiB of memory, cuda:1 has 16 GiB"


@pytest.mark.parametrize(("wanted", "met"), [("7.5", True), ("7.0", True), ("8.0", False), ("10.0", False)])
def test_compute_capabilities_are_compared_as_numbers(wanted: str, met: bool, machine: MakeMachine, t4: Device) -> None:
    reason = unmet(Requirements(capability=wanted), T4, machine(t4))
    assert reason == (None if met else f"needs compute capability {wanted}, cuda:1 NVIDIA T4 has 7.5")


def test_rocm_architectures_are_compared_by_name(machine: MakeMachine, mi300: Device) -> None:
    cell = Cell("llama", "cuda:0", "float16", kind="rocm")
    assert unmet(Requirements(capability="gfx942"), cell, machine(mi300)) is None
    assert unmet(Requirements(capability="gfx90a"), cell, machine(mi300)) is not None
    assert unmet(Requirements(capability="8.0"), cell, machine(mi300)) is not None


def test_a_capability_is_not_met_by_a_device_without_one(machine: MakeMachine) -> None:
    reason = unmet(Requirements(capability="8.0"), Cell("llama", "cpu", "float32"), machine())
    assert reason is not None
    assert reason.endswith("has none")


def test_another_kind_is_unmet(machine: MakeMachine) -> None:
    reason = unmet(Requirements(kinds=("cuda", "rocm")), Cell("llama", "cpu", "float32"), machine())
    assert reason == "needs a device of kind cuda or rocm, the cell is on cpu"


def test_an_absent_device_is_unmet(machine: MakeMachine) -> None:
    assert unmet(Requirements(), CUDA, machine()) == "needs cuda:0, which is not here"


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        ("transformers>=5", None),
        ("pytest", None),
        ("transformers<5", "needs the package transformers<5, 5.23.0 is installed"),
        ("no-such-package-at-all", "needs the package no-such-package-at-all, which is not installed"),
    ],
)
def test_packages_are_required_with_versions(
    package: str, reason: str | None, machine: MakeMachine, a100: Device
) -> None:
    assert unmet(Requirements(packages=(package,)), CUDA, machine(a100)) == reason


SIMULATED = Cell("llama", "cuda:1", "float16", simulated=True)


@pytest.mark.parametrize(
    ("requirements", "reason"),
    [
        (Requirements(devices=2, memory=15 * 2**30, capability="7.5", kinds=("cuda",)), None),
        (Requirements(devices=3), "needs 3 cuda devices, simulated: cuda:0, cuda:1"),
        (Requirements(memory=16 * 2**30), "needs 16 GiB of memory, cuda:1 has 15 GiB"),
        (Requirements(capability="8.0"), "needs compute capability 8.0, cuda:1 Tesla T4 has 7.5"),
        (Requirements(kinds=("mps",)), "needs a device of kind mps, the cell is on cuda"),
        (Requirements(packages=("no-such-package",)), "needs the package no-such-package, which is not installed"),
    ],
)
def test_a_simulated_cell_is_judged_by_the_simulated_cards(
    requirements: Requirements, reason: str | None, machine: MakeMachine
) -> None:
    # As a simulation provides them: nothing was tried on them.
    cards = tuple(Device(f"cuda:{index}", "cuda", "Tesla T4", 15 * 2**30, capability="7.5") for index in range(2))
    other = Device("xpu:0", "xpu", "Max", 64 * 2**30)
    assert unmet(requirements, SIMULATED, machine(simulated_devices=(other, *cards))) == reason


def test_a_real_cell_does_not_count_simulated_cards(machine: MakeMachine) -> None:
    here = machine(simulated_devices=(Device("cuda:0", "cuda"),))
    assert unmet(Requirements(), CUDA, here) == "needs cuda:0, which is not here"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"devices": 0}, "at least 1 device"),
        ({"kinds": ("cude",)}, "unknown device kind 'cude'; did you mean 'cuda'"),
        ({"capability": "eight"}, "capability 'eight' is not like '8.0' or 'gfx942'"),
        ({"packages": ("a b",)}, "'a b' is not a requirement"),
    ],
)
def test_needs_that_can_never_be_met_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Requirements(**values)
