"""Runs one small computation per device, dtype and quantization, and says whether its values are right.

Imports torch. Runs in the probe's child only. Every result is copied to the CPU and compared with float64, because a
broken driver or kernel can return without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final, NamedTuple

import torch

from pytest_llmdevice.errors import first_line
from pytest_llmdevice.hardware.inventory import LONGEST_ERROR, SmokeTest
from pytest_llmdevice.matrix.axes import Quantization
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.matrix.vocabulary import DTYPES

WIDTH: Final = 64
"""Features in and out of what is computed."""

LIMITS: Final = {"float32": 0.01, "bfloat16": 0.05, "float16": 0.01}
"""Largest allowed |result - expected| / |expected| of a dtype, norms over all elements.

Far above what rounding does, far below what a wrong kernel does (about 1).
"""


class TestError(NamedTuple):
    """What one smoke test raised.

    Attributes:
        text: the exception's type and first line.
        unimplemented: whether it says that nobody has written the operation.
    """

    text: str
    unimplemented: bool = False


class WrongResultError(Exception):
    """The operation ran and its values are wrong."""


class DeviceSmokeTests:
    """Runs the smoke tests of one device, one guard each, and stops when the device itself is lost.

    Args:
        device: the device.
        announce: called with the name of each smoke test before it runs, so that a crash can be attributed.
    """

    def __init__(self, device: torch.device, announce: Callable[[str], None] = lambda _: None) -> None:
        self.device = device
        self.lost = ""
        self._announce = announce

    def dtypes(self) -> dict[str, SmokeTest]:
        """Dtype -> outcome of a matmul and a layer norm in it."""
        return {name: self._dtype_test(name) for name in DTYPES}

    def quantization(self, dtypes: Iterable[str], unavailable: Mapping[str, str]) -> dict[str, SmokeTest]:
        """Quantization -> outcome of a layer, with inputs of each of `dtypes`.

        Args:
            dtypes: input dtypes to try: those that passed on this device.
            unavailable: library -> why it cannot be used at all; of those that can be, nothing.
        """
        tried = tuple(dtypes)
        return {
            entry.name: SmokeTest(False, unavailable[entry.library])
            if entry.library in unavailable
            else self._quantization_test(entry, tried)
            for entry in current().of(Quantization).values()
            if entry.packs
        }

    def _dtype_test(self, name: str) -> SmokeTest:
        error = self.guarded(name, partial(_dense, self.device, name))
        return SmokeTest(True) if error is None else SmokeTest(False, error.text)

    def _quantization_test(self, entry: Quantization, dtypes: tuple[str, ...]) -> SmokeTest:
        if not dtypes:
            return SmokeTest(False, "not tried: no dtype passed on this device")
        failures = {}
        for dtype in dtypes:
            error = self.guarded(f"{entry.name} in {dtype}", partial(_quantized, self.device, entry, dtype))
            if error is not None:
                failures[dtype] = error
        ok = len(failures) < len(dtypes)
        return SmokeTest(
            ok,
            "" if ok else next(iter(failures.values())).text,
            {dtype: error.text for dtype, error in failures.items()},
            tuple(dtype for dtype, error in failures.items() if error.unimplemented),
        )

    def guarded(self, name: str, run: Callable[[], object]) -> TestError | None:
        """What `run` raised, None when nothing. Once the device is lost nothing more is run on it.

        Args:
            name: of the smoke test, for messages.
            run: does it.
        """
        if self.lost:
            return TestError(self.lost)
        self._announce(f"{self.device} {name}")
        try:
            run()
        except Exception as error:  # noqa: BLE001 whatever it raises is the answer
            text = first_line(error, LONGEST_ERROR)
            self._look_for_loss(name, text)
            return TestError(text, isinstance(error, NotImplementedError))
        return None

    def _look_for_loss(self, name: str, error: str) -> None:
        # A sticky CUDA error makes every later call on the device fail, whatever it asks for.
        try:
            alive = float((torch.zeros(1, device=self.device) + 1).cpu()) == 1.0
        except Exception:  # noqa: BLE001 likewise
            alive = False
        if not alive:
            self.lost = f"not tried: the device was lost in the {name} smoke test ({error})"


def _dense(device: torch.device, name: str) -> None:
    dtype: torch.dtype = getattr(torch, name)
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(WIDTH, WIDTH, generator=generator).to(dtype) for _ in range(2))
    expected = left.double() @ right.double()
    product = left.to(device) @ right.to(device)
    _compare("matmul", LIMITS[name], product, expected)
    scaled = (expected / WIDTH**0.5).to(dtype)
    normed = torch.nn.functional.layer_norm(scaled.to(device), (WIDTH,))
    _compare("layer_norm", LIMITS[name], normed, torch.nn.functional.layer_norm(scaled.double(), (WIDTH,)))


def _quantized(device: torch.device, entry: Quantization, dtype: str) -> None:
    result, exact, limit = entry.smoke_test(device, dtype)
    if result.dtype != getattr(torch, dtype):
        raise WrongResultError(f"the output is {result.dtype} for an input of torch.{dtype}")
    _compare(f"{entry.name} linear in {dtype}", limit, result, exact)


def _compare(operation: str, limit: float, result: torch.Tensor, expected: torch.Tensor) -> None:
    values = result.cpu().double()
    error = float((values - expected).norm() / expected.norm())
    # Negated so that a NaN, which compares false with everything, fails.
    if not error <= limit:
        raise WrongResultError(
            f"{operation} is off by {error:.3g} of the norm (limit {limit}): the first elements are "
            f"{_first(values)}, expected {_first(expected)}"
        )


def _first(values: torch.Tensor) -> list[float]:
    return [round(float(value), 3) for value in values.flatten()[:3]]
