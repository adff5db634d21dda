"""Provides tiny checkpoints: built offline from configurations, from a local folder, or from the Hugging Face Hub."""

from __future__ import annotations

from pytest_llmdevice.zoo.cache import cache_directory
from pytest_llmdevice.zoo.families import FAMILIES, Family, families, family
from pytest_llmdevice.zoo.prompts import PROMPTS
from pytest_llmdevice.zoo.resolve import checkpoint

__all__ = ["FAMILIES", "PROMPTS", "Family", "cache_directory", "checkpoint", "families", "family"]
