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
    from pytest_llmdevice.checks.examination import examine
    from pytest_llmdevice.diagnosis import Hint
    from pytest_llmdevice.errors import ConfigurationError, LLMDeviceError, SimulationError
    from pytest_llmdevice.hardware import Inventory
    from pytest_llmdevice.loading.target import BuiltinTarget, Target
    from pytest_llmdevice.simulation import Simulation, simulate

__all__ = [
    "BuiltinTarget",
    "Cell",
    "ConfigurationError",
    "Finding",
    "Hint",
    "Inventory",
    "LLMDeviceError",
    "Result",
    "Simulation",
    "SimulationError",
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
    "examine",
    "simulate",
]

_MODULES = {
    "BuiltinTarget": "pytest_llmdevice.loading.target",
    "ConfigurationError": "pytest_llmdevice.errors",
    "Hint": "pytest_llmdevice.diagnosis",
    "Inventory": "pytest_llmdevice.hardware",
    "LLMDeviceError": "pytest_llmdevice.errors",
    "Simulation": "pytest_llmdevice.simulation",
    "SimulationError": "pytest_llmdevice.errors",
    "Target": "pytest_llmdevice.loading.target",
    "examine": "pytest_llmdevice.checks.examination",
    "simulate": "pytest_llmdevice.simulation",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(_MODULES.get(name, "pytest_llmdevice.checks")), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
