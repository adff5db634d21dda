"""Takes the name of a model apart: what it is made of, its traits and an adapter: `llama~no-pad~right+lora`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Final

from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.matrix.suggest import LONGEST, nearest, unknown

TRAIT: Final = "~"
ADAPTER: Final = "+"

ADAPTERS: Final = ("lora",)
"""The adapters that a model of the zoo can have."""

FOLDER: Final = "path:"
HUB: Final = "hub:"
HUB_CONFIG: Final = "hub-config:"

CATALOGUE: Final = "pytest_llmdevice.zoo.catalogue"
"""The module that lists the architectures. Loaded by its name: it is above this package."""


@dataclass(frozen=True, slots=True)
class ModelName:
    """The parts of a model's name.

    Attributes:
        base: a family, an architecture, or a name with a prefix.
        traits: names of traits, in the order in which they are written.
        adapter: what stands behind `+`; empty where there is none.
    """

    base: str
    traits: tuple[str, ...] = ()
    adapter: str = ""


def parts_of(model: str) -> ModelName:
    """The parts of `model`. A folder and a repository with weights stay as they are: their names may hold anything."""
    if model.startswith((FOLDER, HUB)):
        return ModelName(model)
    rest, _, adapter = model.partition(ADAPTER)
    base, *traits = rest.split(TRAIT)
    return ModelName(base, tuple(traits), adapter)


@cache
def architectures() -> tuple[str, ...]:
    """All architectures of the installed transformers for text, as a matrix spells them; imports nothing of it."""
    names: tuple[str, ...] = import_module(CATALOGUE).names()
    return names


def spelled(model: str) -> str:
    """`model` as cells hold it: transformers' underscores in an architecture's name are hyphens here."""
    parts = parts_of(model)
    base = parts.base
    if ":" in base or base in current().names("family"):
        return model
    hyphens = base.replace("_", "-")
    if hyphens == base or not (hyphens in current().names("family") or hyphens in architectures()):
        return model
    return hyphens + model[len(base) :]


def problem_of(model: str) -> str | None:
    """What is wrong with the name of a model, as a sentence, or None. Whether a trait fits it is not looked at."""
    parts = parts_of(model)
    if (parts.adapter or model.endswith(ADAPTER)) and parts.adapter not in ADAPTERS:
        return f"model {model[:LONGEST]!r}: {unknown('adapter', parts.adapter, ADAPTERS)}"
    if (problem := _base_problem(parts.base)) is not None:
        return problem
    known = current().names("trait")
    for trait in parts.traits:
        if trait not in known:
            return f"model {model[:LONGEST]!r}: {unknown('trait', trait, known)}"
    if len(set(parts.traits)) != len(parts.traits):
        return f"model {model[:LONGEST]!r} has a trait twice"
    return None


def _base_problem(base: str) -> str | None:
    prefix, colon, rest = base.partition(":")
    if colon and rest and f"{prefix}:" in (FOLDER, HUB, HUB_CONFIG):
        return None
    families = current().names("family")
    if base in families or base in architectures():
        return None
    valid = (*families, "path:DIR", "hub:ORG/NAME@REVISION", "hub-config:ORG/NAME@REVISION")
    guess = nearest(base, (*families, *architectures()))
    hint = f"; did you mean {guess!r}?" if guess else ""
    return (
        f"unknown model {base[:LONGEST]!r}{hint} (valid: {', '.join(valid)}, and the {len(architectures())} "
        "architectures that `llmdevice zoo` lists)"
    )
