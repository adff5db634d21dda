"""Machines that are not here, built from plain data, and the one that is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from covering import NATIVE

from pytest_llmdevice.hardware import Device, Inventory, SmokeTest, start
from pytest_llmdevice.matrix.vocabulary import DTYPES

OK = SmokeTest(True)
VERSIONS = {"transformers": "5.23.0", "bitsandbytes": "0.50.2", "accelerate": "1.15.0"}

MakeDevice = Callable[..., Device]
MakeMachine = Callable[..., Inventory]


def make_device(device: str, kind: str = "", **changes: object) -> Device:
    """A device on which everything passed, but for `changes`."""
    fields: dict[str, object] = {
        "device": device,
        "kind": kind or device.partition(":")[0],
        "memory": 16 * 2**30,
        "dtypes": dict.fromkeys(DTYPES, OK),
        "quantization": dict.fromkeys(NATIVE[1:], OK),
    }
    return Device(**(fields | changes))  # type: ignore[arg-type]


def make_machine(*devices: Device, **changes: object) -> Inventory:
    """A machine with a CPU and `devices`."""
    fields: dict[str, object] = {"devices": (make_device("cpu"), *devices), "versions": dict(VERSIONS)}
    return Inventory(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture
def device() -> MakeDevice:
    return make_device


@pytest.fixture
def machine() -> MakeMachine:
    return make_machine


@pytest.fixture
def t4() -> Device:
    failed = SmokeTest(False, "RuntimeError: expected scalar type BFloat16 but found Float")
    return make_device(
        "cuda:1",
        name="NVIDIA T4",
        capability="7.5",
        dtypes={"float32": OK, "bfloat16": failed, "float16": OK},
    )


@pytest.fixture
def a100() -> Device:
    return make_device("cuda:0", name="NVIDIA A100", capability="8.0", memory=80 * 2**30)


@pytest.fixture
def mi300() -> Device:
    return make_device("cuda:0", "rocm", name="AMD Instinct MI300X", capability="gfx942")


@pytest.fixture(scope="session")
def this_machine() -> Inventory:
    """One real probe for all tests."""
    return start(300).result()
