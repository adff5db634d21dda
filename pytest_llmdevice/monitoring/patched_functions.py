"""Detects and reverts replaced functions of torch, transformers, accelerate and safetensors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

from pytest_llmdevice.monitoring.change import Change, Comparison

MODULES: Final = (
    "torch",
    "torch.nn",
    "torch.nn.init",
    "torch.nn.functional",
    "torch.cuda",
    "torch.xpu",
    "torch.mps",
    "torch.serialization",
    "transformers.modeling_utils",
    "transformers.initialization",
    "accelerate.big_modeling",
    "accelerate.hooks",
    "accelerate.utils.modeling",
    "safetensors",
    "safetensors.torch",
)
"""Modules in which loaders replace functions during a load. Attention and layer classes of transformers are left out,
because some loaders replace them permanently by design."""

CLASSES: Final = (
    "torch:Tensor",
    "torch.nn:Module",
    "torch.nn:Parameter",
    "torch.nn:Linear",
    "torch.nn:Embedding",
    "torch.nn:LayerNorm",
    "torch.nn:RMSNorm",
    "torch.nn:Conv1d",
    "torch.nn:Conv2d",
    "transformers.modeling_utils:PreTrainedModel",
    "transformers:GenerationMixin",
    "transformers.pytorch_utils:Conv1D",
)

TORCH_COMPILE: Final = ("torch._dynamo", "torch._compile", "torch._inductor", "torch._functorch")
"""Modules of torch.compile, which replaces functions of torch permanently when it is imported or first used. A loader
may use it, and transformers does."""

FOLLOWS_DTYPE: Final = frozenset(("torch.Storage",))
"""Names that torch replaces with the default dtype, which is reported itself."""

_ABSENT: Final = object()


def patched_functions() -> Comparison:
    """Watch the functions of `MODULES` and the methods of `CLASSES` that are imported already."""
    before = [(name, owner, dict(vars(owner))) for name, owner in _owners()]

    def compare() -> Iterator[Change]:
        for name, owner, known in before:
            now = vars(owner)
            # Modules get new names as their submodules are imported; a new name in a class overrides an inherited one.
            added = now.keys() - known.keys() if isinstance(owner, type) else set()
            for key in (*known, *sorted(added)):
                own, current = known.get(key, _ABSENT), now.get(key, _ABSENT)
                if own is current or f"{name}.{key}" in FOLLOWS_DTYPE or not _is_replaced(owner, key, own, current):
                    continue
                inherited = getattr(owner.__mro__[1], key, None) if own is _ABSENT else own
                if own is _ABSENT:
                    delattr(owner, key)
                else:
                    setattr(owner, key, own)
                yield Change("function", f"{name}.{key}", _words(inherited), _words(current))

    return compare


def _owners() -> Iterator[tuple[str, Any]]:
    for name in MODULES:
        module = sys.modules.get(name)
        if module is not None:
            yield name, module
    for entry in CLASSES:
        path, _, key = entry.partition(":")
        # Without `getattr`, which would make a lazy module import its parts.
        value = vars(sys.modules[path]).get(key) if path in sys.modules else None
        if isinstance(value, type):
            yield f"{path}.{key}", value


def _is_replaced(owner: Any, key: str, own: object, current: object) -> bool:
    # A wrapper may copy `__module__` from the function that it wraps, but not its globals.
    defined_in = getattr(current, "__globals__", {}).get("__name__") or getattr(current, "__module__", None)
    if str(defined_in).startswith(TORCH_COMPILE):
        return False
    if own is _ABSENT:
        return callable(current) and hasattr(owner.__mro__[1], key)
    # Also a function that was removed or replaced by something else counts.
    return _is_function(own) and not isinstance(own, ModuleType)


def _is_function(value: object) -> bool:
    return callable(value) or isinstance(value, (staticmethod, classmethod, property))


def _words(function: Any) -> str:
    inner = getattr(function, "__func__", function)
    name = getattr(inner, "__qualname__", None)
    if name is None:
        return "removed" if function is _ABSENT else type(function).__name__
    module = getattr(inner, "__module__", None)
    return f"{module}.{name}" if module else name
