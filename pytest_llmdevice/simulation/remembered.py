"""Finds what libraries remember of the devices that they once asked for: cached answers, and states that are shared.

Nothing here is a list of functions or classes. A cache is about devices if the code of its function, or code that this
calls, names what PyTorch has about devices; a state is shared if the instances of a class have one dictionary.
"""

from __future__ import annotations

import dis
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

PACKAGES: Final = frozenset(("torch", "transformers", "accelerate", "peft", "bitsandbytes", "diffusers", "torchao"))
"""The libraries that are searched."""

_WORDS: Final = re.compile(r"(?:^|.*_)(cuda|xpu|mps|hip|accelerator|get_device_(capability|properties))(_.*|$)")
"""What PyTorch has about devices, as code names it: `torch.cuda`, `torch.version.hip`."""

_COMPILER: Final = re.compile(r"torch\._(inductor|dynamo|functorch|higher_order_ops)(\.|$)")
"""What is off inside a simulation, and asks nothing there. It keeps what it does once per process in caches too."""

_CachedFunction: Any = type(cache(lambda: None))


def cached_answers() -> tuple[Any, ...]:
    """The cached functions of the libraries in memory whose answers are about devices."""
    return _search(len(sys.modules))[0]


def shared_states() -> tuple[tuple[type, str], ...]:
    """The classes of the libraries in memory whose instances share a dictionary, with the name of the attribute."""
    return _search(len(sys.modules))[1]


@dataclass(frozen=True, slots=True)
class _Found:
    size: int
    functions: tuple[Any, ...]
    states: tuple[tuple[type, str], ...]


_found: dict[str, _Found] = {}
"""Name of a module -> what is in it: to search through thousands of modules takes longer than all else on entering."""


@lru_cache(maxsize=1)
def _search(_: int) -> tuple[tuple[Any, ...], tuple[tuple[type, str], ...]]:
    # By the number of modules: they are added, and hardly ever taken away.
    functions: dict[int, Any] = {}
    states: list[tuple[type, str]] = []
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in PACKAGES or _COMPILER.match(name) or not isinstance(module, ModuleType):
            continue
        found = _found.get(name)
        # A module that has more in it than before was being imported then.
        if found is None or found.size != len(vars(module)):
            found = _found[name] = _search_module(module)
        functions |= {id(function): function for function in found.functions}
        states += found.states
    return tuple(functions.values()), tuple(states)


def _search_module(module: ModuleType) -> _Found:
    size = len(vars(module))
    values = list(_values(module))
    functions = tuple(value for value in values if type(value) is _CachedFunction and _about_devices(value))
    states = [(value, attribute) for value in values if _is_class(value) and (attribute := _shared_dictionary(value))]
    return _Found(size, functions, tuple(states))


def _values(module: ModuleType) -> Iterator[Any]:
    """The cached functions and the classes that a module defines, and the cached methods of those."""
    for value in list(vars(module).values()):
        if type(value) is _CachedFunction:
            yield value
        elif _is_class(value) and value.__module__ == module.__name__:
            yield value
            for member in list(vars(value).values()):
                yield member.__func__ if type(member) in {staticmethod, classmethod} else member


def _is_class(value: Any) -> bool:
    # Not `isinstance`, which asks the value itself where it is none: some warn then, others import a module.
    return issubclass(type(value), type)


def _about_devices(function: Any) -> bool:
    seen: set[CodeType] = set()
    functions = [function]
    while functions:
        inner = functions.pop()
        while hasattr(inner, "__wrapped__"):
            inner = inner.__wrapped__
        if not isinstance(inner, FunctionType) or inner.__code__ in seen:
            continue
        seen.add(inner.__code__)
        names = set(_names(inner.__code__))
        if any(map(_WORDS.match, names)):
            return True
        # What it calls: of these libraries only, by the names that its module knows.
        known = inner.__globals__
        functions += [known[name] for name in names if _of_packages(known.get(name))]
    return False


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _of_packages(value: Any) -> bool:
    name = getattr(value, "__module__", None)
    return isinstance(name, str) and name.partition(".")[0] in PACKAGES and callable(value)


def _shared_dictionary(kind: type) -> str:
    """The attribute of a class that its instances have as their `__dict__`; empty where they have their own."""
    init = vars(kind).get("__init__")
    code = getattr(init, "__code__", None)
    if code is None or "__dict__" not in code.co_names:
        return ""
    before = None
    for step in dis.get_instructions(code):
        if step.opname == "STORE_ATTR" and step.argval == "__dict__" and before in vars(kind):
            return str(before)
        if step.opname == "LOAD_ATTR":
            before = step.argval
    return ""
