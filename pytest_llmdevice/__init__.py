"""Hardware-matrix tests for code that loads language models.

The public names, each imported from its module when it is first asked for: importing the package imports neither
torch nor transformers, because pytest imports it in every project that has it installed. `__init__.pyi` says the same
to type checkers.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    "BuiltinTarget": "pytest_llmdevice.loading.target",
    "Cell": "pytest_llmdevice.matrix.cell",
    "Check": "pytest_llmdevice.checks.check",
    "ConfigurationError": "pytest_llmdevice.errors",
    "DeviceKind": "pytest_llmdevice.matrix.axes",
    "Examination": "pytest_llmdevice.checks.examination",
    "DoesNotApply": "pytest_llmdevice.errors",
    "Family": "pytest_llmdevice.zoo",
    "Finding": "pytest_llmdevice.checks",
    "FullTarget": "pytest_llmdevice.loading.target",
    "Hint": "pytest_llmdevice.diagnosis",
    "Inventory": "pytest_llmdevice.hardware",
    "LLMDeviceError": "pytest_llmdevice.errors",
    "Profile": "pytest_llmdevice.simulation",
    "Quantization": "pytest_llmdevice.matrix.axes",
    "Registry": "pytest_llmdevice.matrix.registry",
    "Result": "pytest_llmdevice.checks",
    "Rule": "pytest_llmdevice.matrix.axes",
    "Simulation": "pytest_llmdevice.simulation",
    "SimulationError": "pytest_llmdevice.errors",
    "Strategy": "pytest_llmdevice.matrix.axes",
    "Unsupported": "pytest_llmdevice.errors",
    "Target": "pytest_llmdevice.loading.target",
    "Trait": "pytest_llmdevice.zoo.traits",
    "assert_agrees": "pytest_llmdevice.checks",
    "assert_dtypes": "pytest_llmdevice.checks",
    "assert_eval_mode": "pytest_llmdevice.checks",
    "assert_forward": "pytest_llmdevice.checks",
    "assert_generates": "pytest_llmdevice.checks",
    "assert_no_meta": "pytest_llmdevice.checks",
    "assert_placement": "pytest_llmdevice.checks",
    "assert_quantized": "pytest_llmdevice.checks",
    "assert_tied": "pytest_llmdevice.checks",
    "examine": "pytest_llmdevice.checks.examine",
    "simulate": "pytest_llmdevice.simulation",
}

__all__ = sorted(_MODULES)  # noqa: PLE0605  # each is imported when it is first asked for


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
