"""Where the models of the zoo are."""

from __future__ import annotations

from functools import cache

from pytest_llmdevice import zoo


@cache
def checkpoint(model: str) -> str:
    """The local folder of a model of the zoo; ask for it outside of a simulation."""
    return str(zoo.checkpoint(model))
