"""Functions of torch, transformers and accelerate that were replaced and are not their own any more."""

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
"""Where loaders replace functions for the time of a load. Attention and layer classes of transformers are not among
them: to replace those for good is how some loaders work."""

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

OWN: Final = ("torch._dynamo", "torch._compile", "torch._inductor", "torch._functorch")
"""torch.compile replaces functions of torch, for good, when it is imported or first used. A loader may use it, and
transformers does."""

FOLLOWING: Final = frozenset(("torch.Storage",))
"""What follows the default dtype, which is reported itself."""

_ABSENT: Final = object()


def functions() -> Comparison:
    """The functions of `MODULES`, and the methods of `CLASSES`, that are imported already."""
    before = [(name, owner, dict(vars(owner))) for name, owner in _owners()]

    def compare() -> Iterator[Change]:
        for name, owner, known in before:
            now = vars(owner)
            # Modules get new names as parts of them are imported; a class that does overrides what it inherited.
            added = now.keys() - known.keys() if isinstance(owner, type) else set()
            for key in (*known, *sorted(added)):
                own, found = known.get(key, _ABSENT), now.get(key, _ABSENT)
                if own is found or f"{name}.{key}" in FOLLOWING or not _is_replaced(owner, key, own, found):
                    continue
                inherited = getattr(owner.__mro__[1], key, None) if own is _ABSENT else own
                if own is _ABSENT:
                    delattr(owner, key)
                else:
                    setattr(owner, key, own)
                yield Change("function", f"{name}.{key}", _words(inherited), _words(found))

    return compare


def _owners() -> Iterator[tuple[str, Any]]:
    for name in MODULES:
        module = sys.modules.get(name)
        if module is not None:
            yield name, module
    for entry in CLASSES:
        path, _, key = entry.partition(":")
        # Not by `getattr` of a module that imports its parts when it is asked for them.
        found = vars(sys.modules[path]).get(key) if path in sys.modules else None
        if isinstance(found, type):
            yield f"{path}.{key}", found


def _is_replaced(owner: Any, key: str, own: object, found: object) -> bool:
    # What a function calls its module may be copied from the one that it wraps; where it was written may not.
    written = getattr(found, "__globals__", {}).get("__name__") or getattr(found, "__module__", None)
    if str(written).startswith(OWN):
        return False
    if own is _ABSENT:
        return callable(found) and hasattr(owner.__mro__[1], key)
    # What is removed, or is no function any more, was replaced too.
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
