"""Says of the name of a model whether a checkpoint of it can be built, from its configuration alone."""

from __future__ import annotations

from typing import Any

from pytest_llmdevice.errors import ConfigurationError, UnsupportedByLibrary
from pytest_llmdevice.matrix.model_names import parts_of, problem_of, spelled
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.zoo.build import configuration, vary
from pytest_llmdevice.zoo.families import Family
from pytest_llmdevice.zoo.traits.trait import Trait


def refuse_unfit(model: str) -> None:
    """Do nothing if the family or architecture `model` exists and can have its traits; imports transformers.

    Raises:
        ConfigurationError: it does not, or cannot.
    """
    model = spelled(model)
    if problem := problem_of(model):
        raise ConfigurationError(problem)
    parts = parts_of(model)
    known = current().of(Trait)
    traits = [known[name] for name in parts.traits]
    try:
        config = _configuration(parts.base)
    except UnsupportedByLibrary as error:
        # Of a family it depends on the version of the library, and a cell may say so; an architecture was asked for.
        if parts.base in current().of(Family):
            return
        raise ConfigurationError(str(error)) from None
    vary(parts.base, config, traits)


def _configuration(base: str) -> Any:
    family = current().of(Family).get(base)
    if family is not None:
        return configuration(family)
    from pytest_llmdevice.zoo.architectures import architecture, config_for, family_of

    return config_for(family_of(architecture(base)))
