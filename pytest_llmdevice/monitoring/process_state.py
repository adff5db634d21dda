"""What belongs to the whole process and not to one model: noted before a load, compared and put back after it."""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from pytest_llmdevice.monitoring.change import Change, Comparison
from pytest_llmdevice.monitoring.matmul_precision import precision
from pytest_llmdevice.monitoring.patched_functions import functions
from pytest_llmdevice.monitoring.torch_modes import autocast, modes

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
"""What the names of environment variables about devices begin with. Their values are no secrets."""


@contextmanager
def unchanged_process() -> Iterator[list[Change]]:
    """Put back what a load may change of the process, and say what it changed: the list is filled on leaving.

    Environment, default dtype and device, modes, autocast, the precision of matrix products, current cards, patched
    functions, working folder: whatever is not as before is in the list. Random states, the number of threads, whether
    gradients are computed and whether algorithms are deterministic are put back without a word: to use them up or to
    set them is what loaders do.
    """
    changes: list[Change] = []
    # Functions come back first: the others may be put back with them.
    watched: tuple[Comparison, ...] = (
        functions(),
        modes(),
        autocast(),
        precision(),
        _environment(),
        _default_dtype(),
        _cards(),
        _folder(),
        _collector(),
    )
    quiet = _quiet()
    try:
        yield changes
    finally:
        for comparison in watched:
            changes += comparison()
        quiet()


@contextmanager
def unchanged_by_import() -> Iterator[list[Change]]:
    """The same for the import of a module: variables about devices, the default dtype, the default device.

    Torch is not imported for it.
    Other variables stay as the module sets them: caches, threads and messages are chosen like that.
    """
    changes: list[Change] = []
    environment = _environment(ABOUT_DEVICES)
    watched: tuple[Comparison, ...] = (modes(), _default_dtype()) if "torch" in sys.modules else (_fresh_torch,)
    yield changes
    for comparison in (environment, *watched):
        changes += comparison()


def _fresh_torch() -> Iterator[Change]:
    """What a module changed that was the first one to import torch."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    if dtype != torch.float32:
        torch.set_default_dtype(torch.float32)
        yield Change("dtype", "default dtype", "float32", str(dtype).removeprefix("torch."))
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
            names = [str(dtype).removeprefix("torch.") for dtype in (before, after)]
            yield Change("dtype", "default dtype", names[0], names[1])

    return compare


def _cards() -> Comparison:
    before = {kind: _current(kind) for kind in ("cuda", "xpu")}

    def compare() -> Iterator[Change]:
        import torch

        for kind, card in before.items():
            after = _current(kind)
            if after != card:
                getattr(torch, kind).set_device(card)
                yield Change("card", f"current {kind} device", f"{kind}:{card}", f"{kind}:{after}")

    return compare


def _current(kind: str) -> int:
    """The current card; the first one where nothing has asked for a card yet, and asking would take memory on it."""
    import torch

    module: Any = getattr(torch, kind)
    return int(module.current_device()) if module.is_available() and module.is_initialized() else 0


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


def _quiet() -> Callable[[], None]:
    """What puts back that which nobody needs to hear of."""
    import numpy as np
    import torch

    python_state, torch_state = random.getstate(), torch.get_rng_state()
    numpy_state = np.random.get_state()  # noqa: NPY002  # the global one, which `transformers.set_seed` seeds
    threads, grad = torch.get_num_threads(), torch.is_grad_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()

    def restore() -> None:
        random.setstate(python_state)
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)  # noqa: NPY002  # likewise
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_grad_enabled(grad)
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])

    return restore
