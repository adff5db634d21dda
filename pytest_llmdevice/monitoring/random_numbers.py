"""Tells whether random numbers were drawn, by the states of generators, and puts these back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from pytest_llmdevice.monitoring.change import Change, Comparison


def generator_states() -> tuple[bytes, ...]:
    """The states of torch's default generators, of the CPU and of all cards that are in use; equal if none was used."""
    import torch

    states = [torch.get_rng_state()]
    for kind in ("cuda", "xpu", "mps"):
        module: Any = getattr(torch, kind, None)
        # A card that nobody has used has no generator yet, and asking for its state would make one.
        with suppress(Exception):
            if kind == "mps":
                states += [module.get_rng_state()] if torch.backends.mps.is_available() else []
            elif module.is_initialized():
                states += module.get_rng_state_all()
    return tuple(bytes(state.cpu().numpy().tobytes()) for state in states)


def random_states() -> Comparison:
    """Watch the global generators of torch, NumPy and Python.

    Whoever loads may draw from them; a seed that was set makes all that follows in the process repeat itself.
    """
    import numpy as np
    import torch

    python, arrays, tensors = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    seed = torch.initial_seed()

    def compare() -> Iterator[Change]:
        if (new := torch.initial_seed()) != seed:
            fresh = torch.Generator().manual_seed(new).get_state()
            drawn = not bool((torch.get_rng_state() == fresh).all())
            yield Change("random" if drawn else "seed", "torch", "as it was", f"seeded with {new}")
        elif not bool((torch.get_rng_state() == tensors).all()):
            yield Change("random", "torch", "as it was", "advanced")
        if random.getstate() != python:
            yield Change("random", "python", "as it was", "advanced or seeded")
        now = np.random.get_state()  # noqa: NPY002
        if now[2:] != arrays[2:] or bool((now[1] != arrays[1]).any()):  # type: ignore[index]
            yield Change("random", "numpy", "as it was", "advanced or seeded")
        random.setstate(python)
        torch.set_rng_state(tensors)
        np.random.set_state(arrays)  # noqa: NPY002

    return compare
