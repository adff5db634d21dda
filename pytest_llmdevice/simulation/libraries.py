"""Handles libraries that ask PyTorch about devices once, at import or in a cache, and keep the answer."""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Final

from pytest_llmdevice.errors import SimulationError
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.remembered import cached_answers, shared_states

IMPORTED_FIRST: Final = ("accelerate", "bitsandbytes")
"""Libraries that call `torch.cuda.is_available()` at import; inside a simulation bitsandbytes would load a CUDA
library."""

NOT_IMPORTED: Final = frozenset(
    ("flash_attn", "xformers", "deepspeed", "vllm", "mamba_ssm", "causal_conv1d", "apex", "auto_gptq")
)
"""Libraries that also ask at import, and whose kernels a simulated card cannot run: refused inside a simulation."""


class _Refusal(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """An import finder that finds the libraries that must not be imported now, and refuses to load them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in NOT_IMPORTED:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                spec.loader = self
                return spec
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        raise SimulationError(
            f"{spec.name} looks for devices while it is imported, and would find simulated ones: import it before the "
            "simulation begins"
        )

    def exec_module(self, module: ModuleType) -> None:
        """Never called: `create_module` raises."""


def install(machine: Machine, patches: Patches) -> None:
    """Import the libraries that must see the real machine, and have all of them ask about devices anew, also after it.

    What the libraries share among objects, as accelerate's `PartialState`, is the simulated machine's own; what was
    there before is put back.
    """
    for name in IMPORTED_FIRST:
        if name not in sys.modules and find_spec(name) is not None:
            import_module(name)
    patches.later(forget_devices)
    forget_devices()
    for key in shared_states():
        kind, attribute = key
        state = machine.library_states.setdefault(key, type(vars(kind)[attribute])())
        patches.set(kind, attribute, state)
    patches.later(lambda: _empty_new_states(machine))
    refusal = _Refusal()
    patches.later(lambda: sys.meta_path.remove(refusal) if refusal in sys.meta_path else None)
    sys.meta_path.insert(0, refusal)


def forget_devices() -> None:
    """Empty the caches of answers about devices."""
    for function in cached_answers():
        function.cache_clear()


def _empty_new_states(machine: Machine) -> None:
    """Take away what libraries share that were imported inside the simulation."""
    for key in shared_states():
        if key not in machine.library_states:
            kind, attribute = key
            machine.library_states[key] = vars(kind)[attribute]
            setattr(kind, attribute, type(vars(kind)[attribute])())
