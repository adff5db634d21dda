"""Tells which methods of the libraries' classes a load has replaced, and puts them back once its model is gone.

While the model is there they stay replaced: what it says is what the code under test has made of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, Final

from pytest_llmdevice.monitoring.change import Change

MODULES: Final = ("transformers.models.", "torch.nn.modules.")
"""What the names of modules begin with whose classes models are made of."""

LIBRARIES: Final = frozenset({"accelerate", "bitsandbytes", "peft", "torch", "transformers"})
"""Packages that replace methods of modules and leave hooks by design, also each other's: accelerate, PEFT."""


@dataclass(frozen=True)
class ClassMethods:
    """The methods of the classes that were there at one time."""

    known: Mapping[type, Mapping[str, Any]] = field(repr=False)

    @classmethod
    def now(cls) -> ClassMethods:
        """Those of all modules that are imported."""
        return cls({each: dict(_methods(each)) for each in _classes()})

    def replaced(self) -> Iterator[Change]:
        """What was put in the place of a method since then, or beside them."""
        for kind, name, method in self._others():
            yield Change("method", f"{kind.__name__}.{name}", "the library's own", _words(method))

    def put_back(self) -> None:
        """Have the classes the methods of that time again."""
        for kind, name, _ in list(self._others()):
            if name in self.known[kind]:
                setattr(kind, name, self.known[kind][name])
            else:
                delattr(kind, name)

    def _others(self) -> Iterator[tuple[type, str, Any]]:
        for kind, before in self.known.items():
            for name, method in _methods(kind):
                # transformers gives `nn.Module` a method of its own with the first weights that it initializes.
                if method is not before.get(name) and not is_of_library(method):
                    yield kind, name, method


def is_of_library(function: Any) -> bool:
    """Whether `function`, a method or a hook, was written in one of the libraries."""
    inner = getattr(_function(function), "func", _function(function))
    module = getattr(inner, "__module__", None) or type(inner).__module__
    return str(module).partition(".")[0] in LIBRARIES


def _classes() -> Iterator[type]:
    for name, module in list(sys.modules.items()):
        if name.startswith(MODULES) and module is not None:
            for value in list(vars(module).values()):
                if isinstance(value, type) and value.__module__ == name:
                    yield value


def _methods(kind: type) -> Iterator[tuple[str, Any]]:
    for name, value in list(vars(kind).items()):
        if isinstance(value, (FunctionType, classmethod, staticmethod)):
            yield name, value


def _function(method: Any) -> Any:
    return getattr(method, "__func__", method)


def _words(method: Any) -> str:
    function = _function(method)
    return f"{function.__qualname__.replace('<locals>.', '')} of {function.__module__}"
