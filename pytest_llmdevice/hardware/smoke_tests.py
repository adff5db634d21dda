"""The real operations of the probe: one small computation per device, dtype and quantization. Imports torch.

Runs in the probe's child only. Every result is copied to the CPU and compared with float64, because a broken
driver or kernel can return without an error.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

import torch

from pytest_llmdevice.hardware.inventory import SmokeTest, error_text
from pytest_llmdevice.matrix.vocabulary import DTYPES, QUANTIZATIONS

WIDTH: Final = 64
"""Features in and out: the default block size of bitsandbytes, a multiple of what int8 kernels ask for."""

LIMITS: Final = {
    "float32": 0.01,
    "bfloat16": 0.05,
    "float16": 0.01,
    "int8": 0.1,
    "nf4": 0.25,
    "nf4-double": 0.25,
    "fp4": 0.25,
}
"""Largest allowed |result - expected| / |expected|, norms over all elements.

Far above what rounding does (seen on a CPU: int8 5e-3, nf4 0.09, fp4 0.12), far below what a wrong kernel
does (about 1).
"""


class WrongResultError(Exception):
    """The operation ran and its values are wrong."""


class DeviceSmokeTests:
    """Runs the trials of one device, one guard each, and stops when the device itself is lost.

    Args:
        device: the device.
        announce: called with the name of each trial before it runs, so that a crash can be attributed.
    """

    def __init__(self, device: torch.device, announce: Callable[[str], None] = lambda _: None) -> None:
        self.device = device
        self.lost = ""
        self._announce = announce

    def dtypes(self) -> dict[str, SmokeTest]:
        """Dtype -> outcome of a matmul and a layer norm in it."""
        return {name: self._dtype_trial(name) for name in DTYPES}

    def quantization(self, dtypes: Iterable[str], unavailable: str) -> dict[str, SmokeTest]:
        """Quantization -> outcome of a layer, with inputs of each of `dtypes`.

        Args:
            dtypes: input dtypes to try: those that passed on this device.
            unavailable: why bitsandbytes cannot be used at all, or empty.
        """
        names = [name for name in QUANTIZATIONS if name != "none"]
        if unavailable:
            return {name: SmokeTest(False, unavailable) for name in names}
        tried = tuple(dtypes)
        return {name: self._quantization_trial(name, tried) for name in names}

    def _dtype_trial(self, name: str) -> SmokeTest:
        error = self.guarded(name, partial(_dense, self.device, name))
        return SmokeTest(not error, error)

    def _quantization_trial(self, name: str, dtypes: tuple[str, ...]) -> SmokeTest:
        if not dtypes:
            return SmokeTest(False, "not tried: no dtype passed on this device")
        failures = {}
        for dtype in dtypes:
            error = self.guarded(f"{name} in {dtype}", partial(_quantized, self.device, name, dtype))
            if error:
                failures[dtype] = error
        ok = len(failures) < len(dtypes)
        return SmokeTest(ok, "" if ok else next(iter(failures.values())), failures)

    def guarded(self, smoke_test: str, run: Callable[[], object]) -> str:
        """The error of `run`, or `""`. Once the device is lost nothing more is run on it."""
        if self.lost:
            return self.lost
        self._announce(f"{self.device} {smoke_test}")
        try:
            run()
        except Exception as error:  # noqa: BLE001 whatever it raises is the answer
            text = error_text(error)
            self._look_for_loss(smoke_test, text)
            return text
        return ""

    def _look_for_loss(self, smoke_test: str, error: str) -> None:
        # A sticky CUDA error makes every later call on the device fail, whatever it asks for.
        try:
            alive = float((torch.zeros(1, device=self.device) + 1).cpu()) == 1.0
        except Exception:  # noqa: BLE001 likewise
            alive = False
        if not alive:
            self.lost = f"not tried: the device was lost in the {smoke_test} trial ({error})"


def _dense(device: torch.device, name: str) -> None:
    dtype: torch.dtype = getattr(torch, name)
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(WIDTH, WIDTH, generator=generator).to(dtype) for _ in range(2))
    expected = left.double() @ right.double()
    product = left.to(device) @ right.to(device)
    _compare("matmul", name, product, expected)
    scaled = (expected / WIDTH**0.5).to(dtype)
    normed = torch.nn.functional.layer_norm(scaled.to(device), (WIDTH,))
    _compare("layer_norm", name, normed, torch.nn.functional.layer_norm(scaled.double(), (WIDTH,)))


def _quantized(device: torch.device, quantization: str, dtype_name: str) -> None:
    layers: Any = importlib.import_module("bitsandbytes.nn")
    dtype: torch.dtype = getattr(torch, dtype_name)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(WIDTH, WIDTH, generator=generator).to(dtype)
    inputs = torch.randn(8, WIDTH, generator=generator).to(dtype)
    expected = inputs.double() @ weight.double().T
    layer: torch.nn.Module
    if quantization == "int8":
        layer = layers.Linear8bitLt(WIDTH, WIDTH, bias=False, has_fp16_weights=False)
        stored = torch.int8
    else:
        layer = layers.Linear4bit(
            WIDTH,
            WIDTH,
            bias=False,
            compute_dtype=dtype,
            compress_statistics=quantization == "nf4-double",
            quant_type=quantization.removesuffix("-double"),
        )
        stored = torch.uint8
    layer.load_state_dict({"weight": weight})
    layer = layer.to(device)
    # Without this a layer that silently stayed dense would pass with a perfect result.
    kept = layer.get_parameter("weight")
    if kept.dtype != stored:
        raise WrongResultError(f"the weight is {kept.dtype} after quantization, not {stored}")
    with torch.no_grad():
        result = layer(inputs.to(device))
    if result.dtype != dtype:
        raise WrongResultError(f"the output is {result.dtype} for an input of {dtype}")
    _compare(f"{quantization} linear in {dtype_name}", quantization, result, expected)


def _compare(operation: str, limit: str, result: torch.Tensor, expected: torch.Tensor) -> None:
    found = result.cpu().double()
    error = float((found - expected).norm() / expected.norm())
    # Negated so that a NaN, which compares false with everything, fails.
    if not error <= LIMITS[limit]:
        raise WrongResultError(
            f"{operation} is off by {error:.3g} of the norm (limit {LIMITS[limit]}): the first elements are "
            f"{_first(found)}, expected {_first(expected)}"
        )


def _first(values: torch.Tensor) -> list[float]:
    return [round(float(value), 3) for value in values.flatten()[:3]]
