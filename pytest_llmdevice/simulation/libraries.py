"""Handles libraries that ask PyTorch about devices once, at import or in a cache, and keep the answer."""

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

IMPORTED_FIRST: Final = ("accelerate", "bitsandbytes")
"""Libraries that call `torch.cuda.is_available()` at import; inside a simulation bitsandbytes would load a CUDA
library."""

NOT_IMPORTED: Final = frozenset(
    ("flash_attn", "xformers", "deepspeed", "vllm", "mamba_ssm", "causal_conv1d", "apex", "auto_gptq")
)
"""Libraries that also ask at import, and whose kernels a simulated card cannot run: refused inside a simulation."""

_CACHED: Final = re.compile(
    r"(transformers\.utils(\.import_utils)?|transformers\.integrations\..*|accelerate\.utils\..*"
    r"|bitsandbytes(\..*)?|torch\.cuda)$"
)
_ABOUT_DEVICES: Final = re.compile(
    # Only answers that a simulation changes: asking again whether a package is installed takes longer than a load.
    r".*(cuda|rocm|mps|xpu|bf16|fp16|tf32).*|get_available_devices|_gpu.*|_get_4bit.*|_gemm.*"
)


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


def install(patches: Patches) -> None:
    """Import the libraries that must see the real machine, and empty caches of device answers now and at the end."""
    for name in IMPORTED_FIRST:
        if name not in sys.modules and find_spec(name) is not None:
            import_module(name)
    forget_devices()
    patches.later(forget_devices)
    refusal = _Refusal()
    sys.meta_path.insert(0, refusal)
    patches.later(lambda: sys.meta_path.remove(refusal))


def forget_devices() -> None:
    """Empty the caches of answers about devices."""
    # The number of modules is the cache key, because modules are only ever added: a search through thousands of them
    # would take longer than everything else on entering.
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
