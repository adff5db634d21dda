"""The inventory as data: JSON, lookups, spellings."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_llmdevice.hardware import Cpu, Device, Inventory, SmokeTest, System

MakeDevice = Callable[..., Device]
MakeMachine = Callable[..., Inventory]


def test_every_field_survives_json(device: MakeDevice) -> None:
    smoke_test = SmokeTest(True, failures={"float32": 'RuntimeError: "quoted" and a line\nand ü'})
    inventory = Inventory(
        devices=(device("cpu"), device("cuda:0", "rocm", capability="gfx942", quantization={"int8": smoke_test})),
        versions={"torch": "2.13.0+cpu"},
        cpu=Cpu("name", 4, 2, 10, ("avx2", "fma"), "AVX2"),
        system=System("Linux", "x86_64"),
        visible={"CUDA_VISIBLE_DEVICES": ""},
        failure="x",
    )
    assert Inventory.from_json(inventory.to_json()) == inventory


def test_json_is_one_line(machine: MakeMachine) -> None:
    assert "\n" not in machine(failure="two\nlines").to_json()


@pytest.mark.parametrize("text", ["", "[]", '{"devices": 1}', '{"cpu": {"logical": "many"}}'])
def test_text_that_is_no_inventory_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Inventory.from_json(text)


def test_a_device_is_found_by_spelling_and_kind(machine: MakeMachine, mi300: Device) -> None:
    here = machine(mi300)
    assert here.find("cuda:0", "rocm") is mi300
    assert here.find("cuda:0", "cuda") is None
    assert here.named("cuda:0") is mi300
    assert here.of_kind("rocm") == (mi300,)


@pytest.mark.parametrize(
    ("spelled", "kind", "spec", "index"),
    [
        ("cpu", "cpu", "cpu", 0),
        ("cuda:3", "cuda", "cuda:3", 3),
        ("cuda:3", "rocm", "rocm:3", 3),
        ("mps", "mps", "mps", 0),
    ],
)
def test_a_device_knows_how_a_matrix_spells_it(spelled: str, kind: str, spec: str, index: int) -> None:
    device = Device(spelled, kind)
    assert (device.spec, device.index) == (spec, index)


def test_a_device_is_usable_when_one_dtype_passed(t4: Device, device: MakeDevice) -> None:
    assert t4.usable
    assert not t4.passed("bfloat16")
    assert not device("cuda:0", dtypes={"float32": SmokeTest(False, "x")}).usable
