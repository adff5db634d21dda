"""Hardware-matrix tests for code that loads language models.

The public names, each imported from its module when it is first asked for: importing the package imports neither
torch nor transformers, because pytest imports it in every project that has it installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.matrix.cell import Cell

if TYPE_CHECKING:
    from pytest_llmdevice.checks import (
        Finding,
        Result,
        assert_agrees,
        assert_dtypes,
        assert_eval_mode,
        assert_forward,
        assert_generates,
        assert_no_meta,
        assert_placement,
        assert_quantized,
        assert_tied,
    )
    from pytest_llmdevice.hardware import Inventory
    from pytest_llmdevice.loading.target import BuiltinTarget, Target

__all__ = [
    "BuiltinTarget",
    "Cell",
    "Finding",
    "Inventory",
    "Result",
    "Target",
    "assert_agrees",
    "assert_dtypes",
    "assert_eval_mode",
    "assert_forward",
    "assert_generates",
    "assert_no_meta",
    "assert_placement",
    "assert_quantized",
    "assert_tied",
]

_MODULES = {
    "BuiltinTarget": "pytest_llmdevice.loading.target",
    "Inventory": "pytest_llmdevice.hardware",
    "Target": "pytest_llmdevice.loading.target",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(_MODULES.get(name, "pytest_llmdevice.checks")), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
