"""Tells whether random numbers were drawn, by the states of torch's own generators."""

from __future__ import annotations

from contextlib import suppress
from typing import Any


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
