"""Defines the values of the axes in a matrix file, and how tables of it select cells by them."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Final, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.cell import AXIS_KEYS, Cell
from pytest_llmdevice.matrix.devices import parse_device
from pytest_llmdevice.matrix.model_names import architectures, problem_of, spelled
from pytest_llmdevice.matrix.select import Selector
from pytest_llmdevice.matrix.suggest import unknown
from pytest_llmdevice.matrix.vocabulary import (
    ATTENTIONS,
    DTYPES,
    checks,
    indexed,
    kinds,
    models,
    quantizations,
    strategies,
)


def _names(key: str) -> tuple[str, tuple[str, ...]]:
    """What the values of a key are called, and all of them; nothing for keys whose values are no closed list."""
    match key:
        case "dtypes":
            return "dtype", DTYPES
        case "quantization":
            return "quantization", quantizations()
        case "strategies":
            return "strategy", strategies()
        case "attention":
            return "attention implementation", ATTENTIONS
        case "checks":
            return "check", checks()
    return "", ()


_WILDCARDS: Final = frozenset("*?[")


def invalid(message: str) -> PydanticCustomError:
    """The error that pydantic reports as `message`."""
    # As context and not as the template: pydantic would read braces in the value as placeholders.
    return PydanticCustomError("llmdevice", "{message}", {"message": message})


def value_problem(key: str, value: str) -> str | None:
    """What is wrong with one value of an axis, or None."""
    if key == "models":
        return problem_of(value)
    if key == "devices":
        try:
            parse_device(value)
        except ConfigurationError as error:
            return str(error)
        return None
    what, valid = _names(key)
    return None if value in valid else unknown(what, value, valid)


def _selection_problem(key: str, pattern: str) -> str | None:
    """What is wrong with one pattern of a selection, or None: one that no cell can match would be lost silently."""
    if _WILDCARDS & set(pattern):
        # Indices of cards and names of checkpoints are for the cells to say; all else is a closed list.
        kind = pattern.partition(":")[0]
        if key == "devices" and not _WILDCARDS & set(kind):
            return None if kind in kinds() and indexed(kind) else value_problem(key, pattern)
        what, valid = _names(key)
        return unknown(f"{what} pattern", pattern, valid) if valid and not fnmatch.filter(valid, pattern) else None
    if key == "devices" and indexed(pattern):
        return f"device {pattern!r} names no card; write '{pattern}:0' for one or '{pattern}:*' for all"
    return value_problem(key, pattern)


def as_tuple(value: object) -> object:
    """`value`, as a tuple where it is one name or a list."""
    # TOML arrays arrive as lists, which pydantic's strict mode would refuse for a tuple.
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


Names: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=1000)]
"""One or more names; a single string stands for a list of one."""


class Document(BaseModel):
    """Base of the tables of a matrix file: frozen, and a key that is not listed is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class AxisValues(Document):
    """Values per axis. In `[[include]]` an axis that is left out takes the matrix' own values.

    Attributes:
        models: families of the zoo, `"*"` for all of them; architectures of transformers, `"all"` for all of them;
            `"path:DIR"`, `"hub:ORG/NAME@REVISION"`, or `"hub-config:ORG/NAME@REVISION"` for a tiny one like it. Traits
            follow the name: `"llama~no-pad~right"`.
        devices: `"cpu"`, `"mps"`, one card as `"cuda:1"`, or `"cuda:*"` for every card, at least `cuda:0`.
        dtypes: dtypes of the weights.
        quantization: how weights are stored; `"none"` for dense ones.
        strategies: how weights reach their devices.
        attention: attention implementations of transformers; `"default"` leaves the choice to the loader.
    """

    models: Names | None = None
    devices: Names | None = None
    dtypes: Names | None = None
    quantization: Names | None = None
    strategies: Names | None = None
    attention: Names | None = None

    @field_validator(*AXIS_KEYS)
    @classmethod
    def _known(cls, values: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if values is None:
            return None
        key = str(info.field_name)
        if key == "models":
            groups: dict[str, Callable[[], tuple[str, ...]]] = {"*": models, "all": architectures}
            values = tuple(
                name for value in values for name in (groups[value]() if value in groups else (spelled(value),))
            )
        for value in values:
            if problem := value_problem(key, value):
                raise invalid(problem)
        repeated = [value for value, count in Counter(values).items() if count > 1]
        if repeated:
            raise invalid(f"given more than once: {', '.join(map(repr, repeated))}")
        return values


class Selection(Document):
    """Patterns per axis (shell wildcards); an axis that is left out matches everything.

    Attributes:
        models: patterns of models.
        devices: patterns of devices, `"cuda:*"` or `"rocm:[1-9]*"`.
        dtypes: patterns of dtypes.
        quantization: patterns of quantizations, `"nf4*"`.
        strategies: patterns of strategies.
        attention: patterns of attention implementations.
    """

    models: Names | None = None
    devices: Names | None = None
    dtypes: Names | None = None
    quantization: Names | None = None
    strategies: Names | None = None
    attention: Names | None = None

    @field_validator(*AXIS_KEYS)
    @classmethod
    def _known(cls, values: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        for value in values or ():
            if problem := _selection_problem(str(info.field_name), value):
                raise invalid(problem)
        return values

    @property
    def selector(self) -> Selector:
        """The patterns as a `Selector`."""
        given = {axis: getattr(self, key) for key, axis in AXIS_KEYS.items()}
        return Selector.of({axis: patterns for axis, patterns in given.items() if patterns is not None})

    def matches(self, cell: Cell) -> bool:
        """Whether `cell` fits every axis that is given."""
        return self.selector.matches(cell)
