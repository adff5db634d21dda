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
    from pytest_llmdevice.checks.examination import Check, Examination, examine
    from pytest_llmdevice.diagnosis import Hint
    from pytest_llmdevice.errors import ConfigurationError, LLMDeviceError, SimulationError
    from pytest_llmdevice.hardware import Inventory
    from pytest_llmdevice.loading.target import BuiltinTarget, Target
    from pytest_llmdevice.matrix.axes import DeviceKind, Quantization, Rule, Strategy
    from pytest_llmdevice.matrix.registry import Registry
    from pytest_llmdevice.simulation import Profile, Simulation, simulate
    from pytest_llmdevice.zoo import Family

__all__ = [
    "BuiltinTarget",
    "Cell",
    "Check",
    "ConfigurationError",
    "DeviceKind",
    "Examination",
    "Family",
    "Finding",
    "Hint",
    "Inventory",
    "LLMDeviceError",
    "Profile",
    "Quantization",
    "Registry",
    "Result",
    "Rule",
    "Simulation",
    "SimulationError",
    "Strategy",
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
    "Check": "pytest_llmdevice.checks.examination",
    "ConfigurationError": "pytest_llmdevice.errors",
    "DeviceKind": "pytest_llmdevice.matrix.axes",
    "Examination": "pytest_llmdevice.checks.examination",
    "Family": "pytest_llmdevice.zoo",
    "Hint": "pytest_llmdevice.diagnosis",
    "Inventory": "pytest_llmdevice.hardware",
    "LLMDeviceError": "pytest_llmdevice.errors",
    "Profile": "pytest_llmdevice.simulation",
    "Quantization": "pytest_llmdevice.matrix.axes",
    "Registry": "pytest_llmdevice.matrix.registry",
    "Rule": "pytest_llmdevice.matrix.axes",
    "Simulation": "pytest_llmdevice.simulation",
    "SimulationError": "pytest_llmdevice.errors",
    "Strategy": "pytest_llmdevice.matrix.axes",
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
