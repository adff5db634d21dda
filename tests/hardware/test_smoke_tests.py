"""The real operations of the probe: what passes, what a wrong value, an exception or a lost device does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from covering import NATIVE

from pytest_llmdevice.hardware.smoke_tests import DeviceSmokeTests

CPU = torch.device("cpu")


def test_each_smoke_test_is_announced_before_it_runs() -> None:
    announced: list[str] = []
    DeviceSmokeTests(CPU, announced.append).dtypes()
    assert announced == ["cpu float32", "cpu bfloat16", "cpu float16"]


def test_a_wrong_value_fails_its_dtype_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.nn.functional.layer_norm

    def wrong(values: torch.Tensor, shape: Any) -> torch.Tensor:
        result = real(values, shape)
        return result * 2 if values.dtype == torch.bfloat16 else result

    monkeypatch.setattr(torch.nn.functional, "layer_norm", wrong)
    smoke_tests = DeviceSmokeTests(CPU).dtypes()
    assert [name for name, smoke_test in smoke_tests.items() if not smoke_test.ok] == ["bfloat16"]
    assert smoke_tests["bfloat16"].error.startswith("WrongResultError: layer_norm is off by 1 of the norm (limit 0.05)")


def test_nan_is_a_wrong_value(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.nn.functional.layer_norm
    monkeypatch.setattr(
        torch.nn.functional,
        "layer_norm",
        lambda values, shape: real(values, shape) * (float("nan") if values.dtype == torch.float16 else 1),
    )
    smoke_test = DeviceSmokeTests(CPU).dtypes()["float16"]
    assert not smoke_test.ok
    assert "off by nan" in smoke_test.error


def test_an_exception_keeps_its_type_and_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(values: torch.Tensor, shape: Any) -> torch.Tensor:
        raise NotImplementedError("\"layer_norm\" not implemented for 'Half'\nand a second line")

    monkeypatch.setattr(torch.nn.functional, "layer_norm", refuse)
    error = DeviceSmokeTests(CPU).dtypes()["float16"].error
    assert error == "NotImplementedError: \"layer_norm\" not implemented for 'Half'"


def test_a_device_that_holds_no_data_fails_and_is_lost() -> None:
    # `meta` accepts every operation and has no values: the nearest thing to a dead card that is everywhere.
    smoke_tests = DeviceSmokeTests(torch.device("meta"))
    dtypes = smoke_tests.dtypes()
    assert dtypes["float32"].error.startswith("NotImplementedError: Cannot copy out of meta tensor")
    assert dtypes["bfloat16"].error.startswith("not tried: the device was lost in the float32 smoke test (Not")
    assert smoke_tests.quantization(["float32"], {})["nf4"].error == dtypes["bfloat16"].error


def test_quantization_is_not_tried_without_a_dtype() -> None:
    smoke_tests = DeviceSmokeTests(CPU).quantization([], {})
    assert {smoke_test.error for smoke_test in smoke_tests.values()} == {"not tried: no dtype passed on this device"}


def test_every_quantization_takes_inputs_of_every_dtype_on_the_cpu() -> None:
    pytest.importorskip("bitsandbytes")
    smoke_tests = DeviceSmokeTests(CPU).quantization(["float32", "bfloat16", "float16"], {})
    assert set(NATIVE[1:]) <= set(smoke_tests)
    assert [name for name in NATIVE[1:] if not smoke_tests[name].ok or smoke_tests[name].failures] == []


def test_a_quantization_that_fails_for_one_input_dtype_is_ok_for_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layers = pytest.importorskip("bitsandbytes.nn")
    real = layers.Linear8bitLt.forward

    def no_float32(self: Any, inputs: torch.Tensor) -> torch.Tensor:
        if inputs.dtype == torch.float32:
            raise RuntimeError("no float32")
        result: torch.Tensor = real(self, inputs)
        return result

    monkeypatch.setattr(layers.Linear8bitLt, "forward", no_float32)
    smoke_test = DeviceSmokeTests(CPU).quantization(["float32", "float16"], {})["int8"]
    assert smoke_test.ok
    assert smoke_test.failures == {"float32": "RuntimeError: no float32"}
    assert smoke_test.unimplemented == ()


def test_a_kernel_that_nobody_wrote_is_told_from_one_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = pytest.importorskip("bitsandbytes.nn")

    def unwritten(self: Any, inputs: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("no kernel")

    monkeypatch.setattr(layers.Linear8bitLt, "forward", unwritten)
    smoke_test = DeviceSmokeTests(CPU).quantization(["float32"], {})["int8"]
    assert (smoke_test.ok, smoke_test.unimplemented) == (False, ("float32",))


def test_what_a_missing_library_does_is_not_tried() -> None:
    smoke_tests = DeviceSmokeTests(CPU).quantization(["float32"], {"bitsandbytes": "it is not installed"})
    assert {smoke_tests[name].error for name in NATIVE[1:]} == {"it is not installed"}


def test_a_layer_that_silently_stayed_dense_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = pytest.importorskip("bitsandbytes.nn")

    class Dense(torch.nn.Linear):
        def __init__(self, inputs: int, outputs: int, bias: bool, **_: object) -> None:
            super().__init__(inputs, outputs, bias)

    monkeypatch.setattr(layers, "Linear4bit", Dense)
    smoke_test = DeviceSmokeTests(CPU).quantization(["float32"], {})["nf4"]
    assert smoke_test.error == ("TypeError: the weight is torch.float32 after quantization, not torch.uint8")
