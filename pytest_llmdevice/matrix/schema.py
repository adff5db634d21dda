"""Defines the keys of a matrix file and the values that they take, validated by pydantic."""

from __future__ import annotations

import fnmatch
from typing import Annotated, Literal, Self

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import BeforeValidator, Field, field_validator, model_validator

from pytest_llmdevice.matrix.axis_values import (
    AxisValues,
    Names,
    Selection,
    as_tuple,
    invalid,
    value_problem,
)
from pytest_llmdevice.matrix.cell import AXIS_KEYS, Cell
from pytest_llmdevice.matrix.mixed_quantizations import MixedQuantization
from pytest_llmdevice.matrix.model_names import spelled
from pytest_llmdevice.matrix.own_cards import OwnCard
from pytest_llmdevice.matrix.own_quantizations import OwnQuantization
from pytest_llmdevice.matrix.suggest import unknown
from pytest_llmdevice.matrix.vocabulary import RandomState, checks


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
            if problem := value_problem("models", value):
                raise invalid(problem)
        return tuple(map(spelled, values))

    @field_validator("dtype")
    @classmethod
    def _known_dtype(cls, value: str) -> str:
        if value and (problem := value_problem("dtypes", value)):
            raise invalid(problem)
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
            raise invalid(f"excludes every cell: give at least one of {', '.join(AXIS_KEYS)}")
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
            that do, the check `state` fails. `"free"` if they may do both. Left out, the check fails for a load that
            seeds torch and draws nothing. What is no failure is in its evidence.
        source: where the cause is documented, an address.
        versions: requirements on installed versions (`{ transformers = ">=5" }`), all of which must hold.
    """

    checks: Names | None = None
    tolerance: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    xfail: Annotated[str, Field(min_length=1)] | None = None
    dense: Names | None = None
    random_state: RandomState | None = None
    source: str = ""
    versions: dict[str, str] = Field(default_factory=dict)

    @field_validator("checks")
    @classmethod
    def _known_checks(cls, values: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for value in values or ():
            if problem := value_problem("checks", value):
                raise invalid(problem)
        return values

    @field_validator("versions")
    @classmethod
    def _specifiers(cls, values: dict[str, str]) -> dict[str, str]:
        for package, text in values.items():
            try:
                SpecifierSet(text)
            except InvalidSpecifier:
                raise invalid(f"{package} = {text!r} is not a version requirement such as '>=5,<6'") from None
        return values

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if all(each is None for each in (self.tolerance, self.xfail, self.dense, self.random_state)):
            raise invalid("expects nothing: give 'tolerance', 'dense', 'random_state' or 'xfail'")
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
                raise invalid(unknown("check", value, checks()))
        return values

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.selector.patterns and self.checks is None:
            raise invalid(f"requires nothing: give at least one of {', '.join((*AXIS_KEYS, 'checks'))}")
        return self


class Matrix(AxisValues):
    """A matrix file. Read one with `pytest_llmdevice.matrix.expand.load`.

    Attributes:
        description: a sentence on what the matrix is for.
        extends: name or path of a matrix whose keys hold where this one has none; its `[[exclude]]`,
            `[[include]]`, `[[vary]]`, `[[expect]]`, `[[quantizations]]`, `[[mixed]]` and `[[cards]]` entries are added.
            `[require]` is not inherited.
        coverage: `"full"` for the whole product, `"pairwise"` for a covering array on each kind of device.
        exclude: cells that are never wanted, one `[[exclude]]` table each.
        include: cells that are always wanted, one `[[include]]` table each.
        vary: variations of models that take the place of some cells where coverage is pairwise, one `[[vary]]` table
            each.
        expect: what is known beforehand, one `[[expect]]` table each.
        quantizations: quantizations of one's own, which cells can then name, one `[[quantizations]]` table each.
        mixed: quantizations of which each module has its own, likewise, one `[[mixed]]` table each.
        cards: cards of one's own, which `--llm-simulate` can then name, one `[[cards]]` table each.
        require: coverage that a run must have, one `[require]` table.
    """

    description: str = ""
    extends: str = ""
    coverage: Literal["full", "pairwise"] = "full"
    exclude: Annotated[tuple[Exclude, ...], BeforeValidator(as_tuple), Field(max_length=1000)] = ()
    include: Annotated[tuple[Include, ...], BeforeValidator(as_tuple), Field(max_length=1000)] = ()
    vary: Annotated[tuple[Vary, ...], BeforeValidator(as_tuple), Field(max_length=1000)] = ()
    expect: Annotated[tuple[Expect, ...], BeforeValidator(as_tuple), Field(max_length=1000)] = ()
    quantizations: Annotated[tuple[OwnQuantization, ...], BeforeValidator(as_tuple), Field(max_length=100)] = ()
    mixed: Annotated[tuple[MixedQuantization, ...], BeforeValidator(as_tuple), Field(max_length=100)] = ()
    cards: Annotated[tuple[OwnCard, ...], BeforeValidator(as_tuple), Field(max_length=100)] = ()
    require: Require | None = None

    models: Names
    devices: Names
    dtypes: Names
    quantization: Names = ("none",)
    strategies: Names = ("to",)
    attention: Names = ("default",)
