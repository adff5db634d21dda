"""Provides the traits of real checkpoints, which vary what the zoo builds: `llama~no-pad~right`."""

from __future__ import annotations

from typing import Final

from pytest_llmdevice.zoo.traits import numbers, packed, positions, stored, tokens
from pytest_llmdevice.zoo.traits.trait import Trait

TRAITS: Final = (*tokens.TRAITS, *positions.TRAITS, *numbers.TRAITS, *stored.TRAITS, *packed.TRAITS)

__all__ = ["TRAITS", "Trait"]
