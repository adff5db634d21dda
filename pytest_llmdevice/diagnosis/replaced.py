"""Lists the methods of a model's modules that somebody has put others in the place of.

What a replacement does may be seen in none of the modules that are compared with a plain load's: it may concern padding
only, or what lies between the modules.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.monitoring.class_methods import LIBRARIES

if TYPE_CHECKING:
    from torch import nn

METHODS: Final = ("forward", "__call__", "generate", "prepare_inputs_for_generation", "_sample", "_update_causal_mask")
"""Methods that enter what a model says."""

DECORATORS: Final = frozenset({"contextlib", "functools", "typing_extensions", "warnings"})
"""Modules whose decorators the libraries use."""

OURSELVES: Final = "pytest_llmdevice"
"""Simulated cards are behind methods of the libraries."""


def replaced_methods(model: nn.Module) -> list[str]:
    """In words, each once: `LlamaForCausalLM.forward, by wrapped of my_loader`."""
    found = dict.fromkeys(words for module in model.modules() for words in _of_module(module))
    return list(found)


def replaced_on_classes(model: nn.Module) -> list[tuple[str, str]]:
    """The methods of library classes of `model` that are another's: (`LlamaRMSNorm.forward`, by whom), each once.

    All models of such a class in the process have them. What this package has put there is left out.
    """
    bases = dict.fromkeys(base for module in model.modules() for base in type(module).__mro__)
    found = {}
    for base in bases:
        if base.__module__.partition(".")[0] not in LIBRARIES:
            continue
        for name, method in vars(base).items():
            function = _function(method)
            if function is None or _of_library(method):
                continue
            if str(function.__globals__.get("__name__", "")).partition(".")[0] != OURSELVES:
                found[f"{base.__name__}.{name}"] = _words(method)
    return list(found.items())


def _of_module(module: nn.Module) -> Iterator[str]:
    kind = type(module)
    for name in METHODS:
        own = vars(module).get(name)
        if own is not None and not _of_library(own):
            yield f"{kind.__name__}.{name}, by {_words(own)}"
            continue
        for base in kind.__mro__:
            method = vars(base).get(name)
            if method is None:
                continue
            if base.__module__.partition(".")[0] in LIBRARIES and not _of_library(method):
                yield f"{base.__name__}.{name}, by {_words(method)}"
            break


def _of_library(function: Any) -> bool:
    """Whether the code of `function` and of all that it decorates is a library's."""
    code = _function(function)
    if code is None:
        return type(function).__module__.partition(".")[0] in {*LIBRARIES, "builtins", "functools"}
    # Decorators of the libraries keep the name of the module that they are used in; the file tells where the code is.
    inner = getattr(function, "__wrapped__", None)
    module = inspect.getmodule(code.__code__)
    name = (module.__name__ if module is not None else code.__globals__.get("__name__", "")).partition(".")[0]
    return name in {*LIBRARIES, *DECORATORS} and (inner is None or _of_library(inner))


def _function(function: Any) -> FunctionType | None:
    inner = getattr(function, "__func__", getattr(function, "func", function))
    return inner if isinstance(inner, FunctionType) else None


def _words(function: Any) -> str:
    code = _function(function)
    if code is None:
        return type(function).__name__
    return f"{code.__qualname__.replace('<locals>.', '')} of {code.__globals__.get('__name__', 'nowhere')}"
