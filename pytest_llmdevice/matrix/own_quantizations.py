"""Registers the quantizations that a matrix file describes itself, in its `[[quantizations]]` and `[[mixed]]`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.axes import Machine, Quantization, Rule
from pytest_llmdevice.matrix.axis_values import Document, Names, as_tuple, invalid
from pytest_llmdevice.matrix.cards import LACKS
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.files import read
from pytest_llmdevice.matrix.functions import Configuration, Named, dotted, exists
from pytest_llmdevice.matrix.mixed_quantizations import MixedQuantization
from pytest_llmdevice.matrix.registry import Registry
from pytest_llmdevice.matrix.suggest import unknown
from pytest_llmdevice.matrix.vocabulary import DTYPES, kinds

KEYS: Final = ("quantizations", "mixed")
"""In this order: what is mixed may be of those of one's own."""

Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
UNTRIED: Final = "pytest_llmdevice.loading.smoke_layers:untried"
"""What is tried where a table names nothing."""


class OwnQuantization(Document):
    """A quantization that neither this package nor a plugin knows.

    Functions are named as `"module:function"`; a module is looked for on the path, and beside the matrix file. A layer
    is known by `layer_class`, its weight by `tensor_class`, or by both: names, for which nothing is imported.

    Attributes:
        name: what cells call it.
        description: what it does, a phrase.
        config: what makes the `quantization_config` for `from_pretrained`: a class or function that is called with
            `arguments`, or with the cell where there are none. Left out where the target packs the layers itself.
        arguments: keywords for `config`.
        layer_class: the name of the class that stands in the place of `nn.Linear`.
        tensor_class: the name of the class of a packed weight.
        storage_dtype: the dtype of the packed numbers, without `torch.`.
        dequantize: the function that gives the values of a packed weight, from its module and the tensor; left out
            where the tensor or the module has a method `dequantize`.
        packing_error: the largest relative error of an unpacked weight.
        logits_error: the relative error of the logits that it adds to that of the dtype.
        batch_error: the same between two runs, of which only the batch differs.
        layers: the classes of the layers that it packs.
        dtypes: the dtypes of cells that it can have; left out for all.
        kinds: the kinds of device that it can be on; left out for all.
        unsaved: why such a model cannot be saved; left out where it can.
        needs: what a card must have for it: `"bfloat16"` (not emulated), `"float8"` or `"float64"`; cells on simulated
            cards that lack it are skipped.
        library: the distribution that does it.
        install: what pip takes to install it.
        smoke_test: the function that tries one layer, from a device and the name of a dtype, and gives its result, the
            exact one, and the largest relative error. Left out, nothing is tried before cells run.
        pack: the function that packs the one layer of a model, an `nn.Sequential`, given the device and the name of the
            dtype. What the packed tensor then says of itself, those of a loaded model have to say too. Left out,
            settings are not compared.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    description: str = "a quantization of the matrix file"
    config: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    layer_class: str = ""
    tensor_class: str = ""
    storage_dtype: Literal["int8", "uint8", "int16", "int32", "int64", "float8_e4m3fn", "float8_e5m2"]
    dequantize: str | None = None
    packing_error: Fraction
    logits_error: Fraction
    batch_error: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    layers: Names = ("Linear",)
    dtypes: Names | None = None
    kinds: Names | None = None
    unsaved: str = ""
    needs: Names | None = None
    library: str = ""
    install: str = ""
    smoke_test: str | None = None
    pack: str | None = None

    @field_validator("config", "dequantize", "smoke_test", "pack")
    @classmethod
    def _functions(cls, value: str | None) -> str | None:
        return dotted(value)

    @field_validator("dtypes")
    @classmethod
    def _dtypes(cls, values: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for value in values or ():
            if value not in DTYPES:
                raise invalid(unknown("dtype", value, DTYPES))
        return values

    @field_validator("kinds")
    @classmethod
    def _kinds(cls, values: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for value in values or ():
            if value not in kinds():
                raise invalid(unknown("kind of device", value, kinds()))
        return values

    @field_validator("needs")
    @classmethod
    def _needs(cls, values: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for value in values or ():
            if value not in LACKS:
                raise invalid(unknown("need", value, LACKS))
        return values

    @model_validator(mode="after")
    def _is_known_by_something(self) -> Self:
        if not (self.layer_class or self.tensor_class):
            raise invalid("known by nothing: give 'layer_class', 'tensor_class' or both")
        if self.arguments and self.config is None:
            raise invalid("has 'arguments' and no 'config' that takes them")
        if self.library and not self.install:
            raise invalid("has a 'library' and no 'install' that says what pip takes")
        return self

    def functions(self) -> Iterator[tuple[str, str]]:
        """The keys that name a function, with what they name."""
        for key in ("config", "dequantize", "smoke_test", "pack"):
            value = getattr(self, key)
            if value is not None:
                yield key, value

    def entry(self, folder: Path, _: Registry) -> Quantization:
        """What is registered of it; `folder` is that of the matrix file."""
        optional: dict[str, Any] = {}
        for key, function in (("dequantize", self.dequantize), ("pack", self.pack)):
            if function is not None:
                optional[key] = Named(function, folder)
        return Quantization(
            self.name,
            self.description,
            self.library,
            self.install,
            Configuration(self.config, self.arguments, folder),
            MappingProxyType({}),
            layer_class=self.layer_class,
            parameter_class=self.tensor_class,
            storage_dtype=self.storage_dtype,
            smoke_test=Named(self.smoke_test or UNTRIED, folder),
            packing_error=self.packing_error,
            logits_error=self.logits_error,
            batch_error=self.batch_error,
            rules=(_installed(self.library, self.install),) if self.library else (),
            layers=self.layers,
            dtypes=self.dtypes or (),
            kinds=self.kinds or (),
            unsaved=self.unsaved,
            needs=self.needs or (),
            **optional,
        )


def _installed(library: str, install: str) -> Rule:
    def reason(_: Cell, machine: Machine) -> str | None:
        return None if library in machine.versions else f"{library} is not installed; pip install '{install}'"

    return Rule(f"{library}-installed", "`library` of its table in the matrix file", reason)


class OwnTables(BaseModel):
    """The `[[quantizations]]` and `[[mixed]]` of a matrix file, whatever else is in it."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    quantizations: Annotated[tuple[OwnQuantization, ...], BeforeValidator(as_tuple), Field(max_length=100)] = ()
    mixed: Annotated[tuple[MixedQuantization, ...], BeforeValidator(as_tuple), Field(max_length=100)] = ()


def register(path: Path, said: OwnTables, registry: Registry) -> None:
    """Have `registry` know what the matrix file `path` describes; what it has from this file already stays.

    Raises:
        ConfigurationError: a name is taken, what is mixed is not known, or a function is in no module.
    """
    plugin = f"matrix file {path}"
    for key in KEYS:
        tables: tuple[OwnQuantization | MixedQuantization, ...] = getattr(said, key)
        for each in tables:
            _look_for_functions(path, key, each)
        new = [each for each in tables if not _is_there(registry, each.name, plugin)]

        def add(into: Registry, key: str = key, new: list[OwnQuantization | MixedQuantization] = new) -> None:
            for each in new:
                if isinstance(each, MixedQuantization) and (problem := each.problem(into)):
                    line = f"{key}, {each.name!r}: {problem}"
                    raise ConfigurationError(f"matrix {path}: {line}", [line])
                into.add(each.entry(path.parent, into))

        if new:
            registry.load(plugin, add, file=str(path))


def _look_for_functions(path: Path, key: str, said: OwnQuantization | MixedQuantization) -> None:
    for name, function in said.functions():
        module = function.partition(":")[0]
        if not exists(function, path.parent):
            raise ConfigurationError(
                f"matrix {path}: {key}, {said.name!r}: {name}: there is no module {module!r} on the path or beside the "
                "file",
                [f"{key}, {said.name!r}: {name}: no module {module!r}"],
            )


def _is_there(registry: Registry, name: str, plugin: str) -> bool:
    entry = registry.of(Quantization).get(name)
    return entry is not None and registry.plugin_of(entry) == plugin


def register_table(path: Path, table: Mapping[str, object], registry: Registry) -> None:
    """Register what `table`, read from the matrix file `path`, describes.

    Raises:
        ValidationError: it is malformed.
        ConfigurationError: a name is taken, what is mixed is not known, or a function is in no module.
    """
    if found := {key: table[key] for key in KEYS if key in table}:
        register(path, OwnTables.model_validate(found), registry)


def register_file(path: Path, registry: Registry) -> None:
    """The same for a file that another process has validated."""
    register_table(path, read(path), registry)
