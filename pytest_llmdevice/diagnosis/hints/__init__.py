"""Collects the known causes of findings, one module per family; `ALL` maps their names to hints."""

from __future__ import annotations

from types import ModuleType
from typing import Final

from pytest_llmdevice.diagnosis.finding import Hint
from pytest_llmdevice.diagnosis.hints import (
    dtypes,
    generation,
    loads,
    placement,
    quantization,
    raised,
    saving,
    sequences,
    state,
    values,
)


def _hints(module: ModuleType) -> dict[str, Hint]:
    return {hint.name: hint for hint in vars(module).values() if isinstance(hint, Hint)}


FAMILIES: Final = {
    module.__name__.rpartition(".")[2]: _hints(module)
    for module in (loads, placement, dtypes, values, quantization, state, generation, sequences, saving, raised)
}

ALL: Final = {name: hint for family in FAMILIES.values() for name, hint in family.items()}
