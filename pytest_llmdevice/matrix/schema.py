"""Defines the keys of a matrix file and the values that they take, validated by pydantic."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Final, Literal, Self, TypeAlias

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator
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


def _bad(message: str) -> PydanticCustomError:
    # As context and not as the template: pydantic would read braces in the value as placeholders.
    return PydanticCustomError("llmdevice", "{message}", {"message": message})


def _problem(key: str, value: str) -> str | None:
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
            return None if kind in kinds() and indexed(kind) else _problem(key, pattern)
        what, valid = _names(key)
        return unknown(f"{what} pattern", pattern, valid) if valid and not fnmatch.filter(valid, pattern) else None
    if key == "devices" and indexed(pattern):
        return f"device {pattern!r} names no card; write '{pattern}:0' for one or '{pattern}:*' for all"
    return _problem(key, pattern)


def _listed(value: object) -> object:
    # TOML arrays arrive as lists, which pydantic's strict mode would refuse for a tuple.
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


Names: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1, max_length=1000)]
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
            if problem := _problem(key, value):
                raise _bad(problem)
        repeated = [value for value, count in Counter(values).items() if count > 1]
        if repeated:
            raise _bad(f"given more than once: {', '.join(map(repr, repeated))}")
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
                raise _bad(problem)
        return values

    @property
    def selector(self) -> Selector:
        """The patterns as a `Selector`."""
        given = {axis: getattr(self, key) for key, axis in AXIS_KEYS.items()}
        return Selector.of({axis: patterns for axis, patterns in given.items() if patterns is not None})

    def matches(self, cell: Cell) -> bool:
        """Whether `cell` fits every axis that is given."""
        return self.selector.matches(cell)


class Include(AxisValues):
    """Cells that are in whatever the product and the coverage say.

    Attributes:
        reason: why, for whoever reads the file.
    """

    reason: str = ""


class Vary(Selection):
    """Variations of models that take the place of cells, one on each kind of device, so that none is added for them.

    Where coverage is pairwise; in a full matrix they are named as models.

    Attributes:
        by: the models that take a place, such as `"qwen2~right"`. Where `models` is left out, each takes one of the
            model that it varies.
        dtype: the dtype that they have there, where the cell's is not the one that shows what is other.
        reason: why, for whoever reads the file.
    """

    by: Names
    dtype: str = ""
    reason: str = ""

    @field_validator("by")
    @classmethod
    def _known_models(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if problem := _problem("models", value):
                raise _bad(problem)
        return tuple(map(spelled, values))

    @field_validator("dtype")
    @classmethod
    def _known_dtype(cls, value: str) -> str:
        if value and (problem := _problem("dtypes", value)):
            raise _bad(problem)
        return value


class Exclude(Selection):
    """Cells that are never wanted.

    Attributes:
        reason: why, for `llmdevice matrix show`.
    """

    reason: str = ""

    @model_validator(mode="after")
    def _not_everything(self) -> Self:
        if not self.selector.patterns:
            raise _bad(f"excludes every cell: give at least one of {', '.join(AXIS_KEYS)}")
        return self


class Expect(Selection):
    """What is known beforehand of some cells: a wider tolerance, layers that stay dense, or a failure with its cause.

    Attributes:
        checks: the checks it applies to; all of them when left out.
        tolerance: the largest relative error of the logits in the check `agreement`, at most 1, which logits that are
            all zero have.
        xfail: why the checks fail; the failure is strict, a pass is reported as a failure.
        dense: patterns of the modules that the loader leaves unquantized on purpose, by their whole name or the end of
            it (`"lm_head"`, `"*.mlp.down_proj"`); in a quantized cell they must be dense then.
        random_state: `"kept"` if the load and the generation must neither draw nor seed global random numbers: of those
            that do, the check `state` fails. Left out, it says so in its evidence.
        source: where the cause is documented, an address.
        versions: requirements on installed versions (`{ transformers = ">=5" }`), all of which must hold.
    """

    checks: Names | None = None
    tolerance: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    xfail: Annotated[str, Field(min_length=1)] | None = None
    dense: Names | None = None
    random_state: Literal["kept"] | None = None
    source: str = ""
    versions: dict[str, str] = {}

    @field_validator("checks")
    @classmethod
    def _known_checks(cls, values: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for value in values or ():
            if problem := _problem("checks", value):
                raise _bad(problem)
        return values

    @field_validator("versions")
    @classmethod
    def _specifiers(cls, values: dict[str, str]) -> dict[str, str]:
        for package, text in values.items():
            try:
                SpecifierSet(text)
            except InvalidSpecifier:
                raise _bad(f"{package} = {text!r} is not a version requirement such as '>=5,<6'") from None
        return values

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if all(each is None for each in (self.tolerance, self.xfail, self.dense, self.random_state)):
            raise _bad("expects nothing: give 'tolerance', 'dense', 'random_state' or 'xfail'")
        return self

    def applies(self, cell: Cell, check: str, versions: dict[str, str]) -> bool:
        """Whether this entry speaks of `check` of `cell` under the installed `versions`."""
        return (
            (self.checks is None or check in self.checks)
            and self.matches(cell)
            and all(
                package in versions and SpecifierSet(text).contains(versions[package], prereleases=True)
                for package, text in self.versions.items()
            )
        )


class Require(Selection):
    """Coverage that a run must have: each value that is named must be in a cell that passed on real hardware.

    Attributes:
        checks: patterns of the checks that must have run on a cell before it counts as passed, also of tests of one's
            own (`"test_mine::*"`); all checks of the suite when left out.
    """

    checks: Names | None = None

    @field_validator("checks")
    @classmethod
    def _known_checks(cls, values: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for value in values or ():
            # The names of tests of one's own are known when they are collected.
            if "::" not in value and not fnmatch.filter(checks(), value):
                raise _bad(unknown("check", value, checks()))
        return values

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.selector.patterns and self.checks is None:
            raise _bad(f"requires nothing: give at least one of {', '.join((*AXIS_KEYS, 'checks'))}")
        return self


class Matrix(AxisValues):
    """A matrix file. Read one with `pytest_llmdevice.matrix.expand.load`.

    Attributes:
        description: a sentence on what the matrix is for.
        extends: name or path of a matrix whose keys hold where this one has none; its `[[exclude]]`,
            `[[include]]`, `[[vary]]` and `[[expect]]` entries are added. `[require]` is not inherited.
        coverage: `"full"` for the whole product, `"pairwise"` for a covering array on each kind of device.
        exclude: cells that are never wanted, one `[[exclude]]` table each.
        include: cells that are always wanted, one `[[include]]` table each.
        vary: variations of models that take the place of some cells where coverage is pairwise, one `[[vary]]` table
            each.
        expect: what is known beforehand, one `[[expect]]` table each.
        require: coverage that a run must have, one `[require]` table.
    """

    description: str = ""
    extends: str = ""
    coverage: Literal["full", "pairwise"] = "full"
    exclude: Annotated[tuple[Exclude, ...], BeforeValidator(_listed), Field(max_length=1000)] = ()
    include: Annotated[tuple[Include, ...], BeforeValidator(_listed), Field(max_length=1000)] = ()
    vary: Annotated[tuple[Vary, ...], BeforeValidator(_listed), Field(max_length=1000)] = ()
    expect: Annotated[tuple[Expect, ...], BeforeValidator(_listed), Field(max_length=1000)] = ()
    require: Require | None = None

    models: Names
    devices: Names
    dtypes: Names
    quantization: Names = ("none",)
    strategies: Names = ("to",)
    attention: Names = ("default",)
