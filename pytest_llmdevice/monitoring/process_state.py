"""Detects and reverts changes that a load or an import makes to state of the whole process."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from pytest_llmdevice.matrix.vocabulary import dtype_name
from pytest_llmdevice.monitoring.change import Change, Comparison
from pytest_llmdevice.monitoring.matmul_precision import matmul_precision
from pytest_llmdevice.monitoring.patched_functions import patched_functions
from pytest_llmdevice.monitoring.random_numbers import random_states
from pytest_llmdevice.monitoring.ranks import rank_here, size_here
from pytest_llmdevice.monitoring.settings import descriptors, settings_of_process
from pytest_llmdevice.monitoring.torch_modes import autocast_state, torch_modes

ABOUT_DEVICES: Final = (
    "CUDA_",
    "HIP_",
    "ROCR_",
    "HSA_",
    "GPU_DEVICE_ORDINAL",
    "ZE_",
    "ONEAPI_",
    "NVIDIA_VISIBLE_DEVICES",
    "PYTORCH_ENABLE_MPS_FALLBACK",
)
"""Prefixes of the environment variables about devices. Their values are not secret, so they are reported."""


@contextmanager
def unchanged_process() -> Iterator[list[Change]]:
    """Restore the state of the process on leaving, and fill the yielded list with what had changed.

    Reported are changes of the environment, default dtype and device, modes, autocast, the precision of matrix
    products, current cards, patched functions, working folder, garbage collection, the settings of `settings`, standard
    streams, and random states.
    """
    changes: list[Change] = []
    # Functions are restored first: restoring the rest calls some of them.
    watched: tuple[Comparison, ...] = (
        patched_functions(),
        torch_modes(),
        autocast_state(),
        matmul_precision(),
        _environment(),
        _default_dtype(),
        _cards(),
        _folder(),
        _collector(),
        settings_of_process(),
        descriptors(),
        random_states(),
    )
    try:
        yield changes
    finally:
        for comparison in watched:
            changes += comparison()


@contextmanager
def unchanged_by_import() -> Iterator[list[Change]]:
    """Do the same for the import of a module: environment variables about devices, default dtype, default device.

    It does not import torch. Other environment variables keep the values that the module sets, because modules
    choose caches, threads and messages like that.
    """
    changes: list[Change] = []
    environment = _environment(ABOUT_DEVICES)
    watched: tuple[Comparison, ...] = (torch_modes(), _default_dtype()) if "torch" in sys.modules else (_fresh_torch,)
    yield changes
    for comparison in (environment, *watched):
        changes += comparison()


def _fresh_torch() -> Iterator[Change]:
    """The changes that a module made if it was the first to import torch."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    if dtype != torch.float32:
        torch.set_default_dtype(torch.float32)
        yield Change("dtype", "default dtype", "float32", dtype_name(dtype))
    if device.type != "cpu":
        torch.set_default_device(None)
        yield Change("device", "default device", "cpu", str(device))


def _environment(about: tuple[str, ...] = ("",)) -> Comparison:
    """The variables whose names begin with one of `about`."""

    def variables() -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name.startswith(about)}

    before = variables()

    def compare() -> Iterator[Change]:
        after = variables()
        for name in after.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                yield _variable(name, before.get(name), after.get(name))

    return compare


def _variable(name: str, before: str | None, after: str | None) -> Change:
    if name.startswith(ABOUT_DEVICES):
        words = ["not set" if value is None else repr(value) for value in (before, after)]
        return Change("environment", name, words[0], words[1])
    if before is None:
        return Change("environment", name, "not set", "set")
    return Change("environment", name, "as it was", "removed" if after is None else "changed")


def _default_dtype() -> Comparison:
    import torch

    before = torch.get_default_dtype()

    def compare() -> Iterator[Change]:
        after = torch.get_default_dtype()
        if after != before:
            torch.set_default_dtype(before)
            names = [dtype_name(dtype) for dtype in (before, after)]
            yield Change("dtype", "default dtype", names[0], names[1])

    return compare


def _cards() -> Comparison:
    before = {kind: _current(kind) for kind in ("cuda", "xpu")}

    def compare() -> Iterator[Change]:
        import torch

        for kind, card in before.items():
            after = _current(kind)
            if size_here() > 1 and after == rank_here():
                # Each of several processes makes its own card the current one, and works there from then on.
                continue
            if after != card:
                getattr(torch, kind).set_device(card)
                yield Change("card", f"current {kind} device", f"{kind}:{card}", f"{kind}:{after}")

    return compare


def _current(kind: str) -> int:
    """The index of the current card; 0 before the first use of a card, because asking would take memory on it."""
    import torch

    module: Any = getattr(torch, kind)
    # In this order: asking whether there are cards starts their driver, which then reads no variable any more.
    return int(module.current_device()) if module.is_initialized() and module.is_available() else 0


def _folder() -> Comparison:
    before = _working_folder()

    def compare() -> Iterator[Change]:
        after = _working_folder()
        if after != before and before is not None:
            with suppress(OSError):
                os.chdir(before)
            yield Change("folder", "working folder", before, str(after))

    return compare


def _working_folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109  # a Path would be no clearer here
    except OSError:
        return None


def _collector() -> Comparison:
    before = gc.isenabled()

    def compare() -> Iterator[Change]:
        if before and not gc.isenabled():
            gc.enable()
            yield Change("collector", "garbage collection", "on", "off")

    return compare
