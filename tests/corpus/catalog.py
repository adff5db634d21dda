"""All cases, in the order of the files that they are in."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Final

import corpus
from corpus.case import Case

_MODULES: Final = tuple(
    import_module(f"corpus.{found.name}")
    for found in iter_modules(corpus.__path__)
    if found.name.startswith(("load_", "generate_"))
)

CASES: Final[tuple[Case, ...]] = tuple(case for module in _MODULES for case in getattr(module, "CASES", ()))
