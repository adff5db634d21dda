"""Registers what the package itself offers, in the way in which any plugin registers what it adds."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

from pytest_llmdevice import checks
from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.diagnosis.hints import HINTS
from pytest_llmdevice.hardware.device_kinds import DEVICE_KINDS
from pytest_llmdevice.loading.quantization import QUANTIZATIONS
from pytest_llmdevice.loading.quantizers import QUANTIZERS
from pytest_llmdevice.loading.strategies import STRATEGIES
from pytest_llmdevice.matrix.registry import Registry
from pytest_llmdevice.simulation.profiles import PROFILES
from pytest_llmdevice.zoo.families import FAMILIES
from pytest_llmdevice.zoo.traits import TRAITS


def pytest_llm_register(registry: Registry) -> None:
    """Add the built-in entries. A check is added by being defined in a module of `checks`."""
    registry.add(*DEVICE_KINDS, *STRATEGIES, *QUANTIZATIONS, *QUANTIZERS, *FAMILIES, *TRAITS, *PROFILES, *HINTS)
    registry.add(*_in_order(list(_checks())))


def _checks() -> Iterator[Check]:
    for module in iter_modules(checks.__path__, f"{checks.__name__}."):
        # This one is being imported.
        if module.name != __name__:
            entries = vars(import_module(module.name)).values()
            yield from (value for value in entries if isinstance(value, Check))


def _in_order(entries: list[Check]) -> Iterator[Check]:
    """Each check behind the one that it names; what names none goes first."""
    placed = {""}
    while ready := [check for check in entries if check.after in placed and check.name not in placed]:
        yield from ready
        placed |= {check.name for check in ready}
    # What is left names a check that does not exist: the registry says so.
    yield from (check for check in entries if check.name not in placed)
