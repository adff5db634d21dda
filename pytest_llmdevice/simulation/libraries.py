"""Libraries that ask about devices once and remember the answer: at import, or in a cache."""

from __future__ import annotations

import importlib.abc
import re
import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

from pytest_llmdevice.errors import SimulationError
from pytest_llmdevice.simulation.patches import Patches

EARLY: Final = ("accelerate", "bitsandbytes")
"""They look at `torch.cuda.is_available()` while they are imported: bitsandbytes would load a CUDA library."""

TOO_LATE: Final = frozenset(
    ("flash_attn", "xformers", "deepspeed", "vllm", "mamba_ssm", "causal_conv1d", "apex", "auto_gptq")
)
"""Others that do, and have no use for a card that cannot run their kernels: not to be imported inside a simulation."""

_CACHED: Final = re.compile(
    r"(transformers\.utils(\.import_utils)?|transformers\.integrations\..*|accelerate\.utils\..*"
    r"|bitsandbytes(\..*)?|torch\.cuda)$"
)
_ABOUT_DEVICES: Final = re.compile(
    # Only what a simulation changes. To find out anew whether a package is installed takes longer than a load.
    r".*(cuda|rocm|mps|xpu|bf16|fp16|tf32).*|get_available_devices|_gpu.*|_get_4bit.*|_gemm.*"
)


class _Refusal(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds what is not to be imported now, as every finder would, and refuses to load it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in TOO_LATE:
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
        """Nothing gets here."""


def before(patches: Patches) -> None:
    """Import what must see the real machine, and have every remembered answer forgotten now and afterwards."""
    for name in EARLY:
        if name not in sys.modules and find_spec(name) is not None:
            import_module(name)
    forget()
    patches.later(forget)
    refusal = _Refusal()
    sys.meta_path.insert(0, refusal)
    patches.later(lambda: sys.meta_path.remove(refusal))


def forget() -> None:
    """Empty the caches of answers about devices."""
    # Modules only ever get more; looking through thousands of them would cost more than all else on entering.
    for function in _caches(len(sys.modules)):
        function.cache_clear()


@lru_cache(maxsize=1)
def _caches(_: int) -> tuple[Any, ...]:
    return tuple(
        value
        for module_name, module in list(sys.modules.items())
        if _CACHED.match(module_name)
        for name, value in vars(module).items()
        if _ABOUT_DEVICES.match(name) and callable(getattr(value, "cache_clear", None))
    )
