"""Registers the cards that a matrix file describes itself, in its `[[cards]]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.axis_values import Document, Names, as_tuple, invalid
from pytest_llmdevice.matrix.cards import LACKS, SIMULATED, Profile, card_of
from pytest_llmdevice.matrix.files import read
from pytest_llmdevice.matrix.memory_size import parse_memory
from pytest_llmdevice.matrix.registry import Registry
from pytest_llmdevice.matrix.suggest import unknown

KEY: Final = "cards"

TOOLKITS: Final = {"cuda": "13.0", "hip": "7.0", "xpu": "20250301", "mps": ""}
"""Backend -> the toolkit of a card for which none is said."""

Memory = Annotated[str, Field(min_length=1)]


def _memory(value: str) -> str:
    try:
        size = parse_memory(value)
    except ConfigurationError as error:
        raise invalid(str(error)) from None
    if size < 1:
        raise invalid("a card needs some memory")
    return value


class OwnSlice(Document):
    """A MIG instance of a card.

    Attributes:
        memory: its size, `"9.5 GiB"`.
        processors: its streaming multiprocessors.
    """

    memory: Memory
    processors: Annotated[int, Field(ge=1)]

    _size = field_validator("memory")(_memory)


class OwnCard(Document):
    """A card to simulate that neither this package nor a plugin knows. The package's data files have the same keys.

    Attributes:
        name: how `--llm-simulate` calls it, its kind in front: `"cuda-edge"`, which is `cuda:edge` beside others.
        backend: PyTorch's for it: `"cuda"`, `"hip"` (AMD and those like it), `"xpu"` or `"mps"`.
        card: the name that its driver gives it.
        memory: its size, `"6 GiB"`.
        capability: the compute capability, `[8, 9]`; of an AMD card the numbers in PyTorch's properties.
        architecture: the gfx name of an AMD card.
        processors: streaming multiprocessors, compute units or cores.
        warp: threads that run in step.
        toolkit: the version of CUDA, ROCm or oneAPI of the PyTorch that is simulated; left out for the newest known.
        vendor: who makes it; left out for the usual one.
        lacks: what it has not: `"bfloat16"` (it is emulated), `"float8"`, `"float64"`. Of an NVIDIA card what its
            capability says is added.
        slices: the MIG instances that it can be divided into, a table for each name.
        sources: where each figure is from.
        also: other names of it.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    backend: Literal["cuda", "hip", "xpu", "mps", "hpu", "npu"]
    card: Annotated[str, Field(min_length=1)]
    memory: Memory
    capability: Annotated[tuple[int, int], BeforeValidator(as_tuple)] = (0, 0)
    architecture: Annotated[str, Field(pattern=r"^(gfx[0-9a-f]+)?$")] = ""
    processors: Annotated[int, Field(ge=1)] = 1
    warp: Annotated[int, Field(ge=1)] = 32
    toolkit: Annotated[str, Field(pattern=r"^(\d+(\.\d+)*)?$")] = ""
    vendor: str = ""
    lacks: Names = ()
    slices: dict[str, OwnSlice] = Field(default_factory=dict)
    sources: dict[str, str] = Field(default_factory=dict)
    also: Names = ()

    _size = field_validator("memory")(_memory)

    @field_validator("lacks")
    @classmethod
    def _known(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if value not in LACKS:
                raise invalid(unknown("lack", value, LACKS))
        return values

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.backend == "cuda" and not any(self.capability):
            raise invalid("an NVIDIA card needs a 'capability', as in [8, 9]")
        if self.backend == "hip" and not self.architecture:
            raise invalid("a card of ROCm needs an 'architecture', as in 'gfx942'")
        if self.slices and self.backend != "cuda":
            raise invalid("only NVIDIA cards have MIG instances")
        if self.backend in {"cuda", "hip"} and self.toolkit and self.toolkit.count(".") < 1:
            raise invalid("'toolkit' is not like '13.0'")
        return self

    def entries(self) -> tuple[Profile, ...]:
        """What is registered of it, under each of its names.

        Raises:
            ConfigurationError: the runtime of its backend is not simulated.
        """
        if self.backend not in SIMULATED:
            raise ConfigurationError(f"{KEY}, {self.name!r}: cards of {self.backend} are not simulated")
        said = self.model_dump(exclude_defaults=True)
        card = card_of({"toolkit": TOOLKITS[self.backend], **said})
        return tuple(replace(card, name=name) for name in (self.name, *self.also))


def register(path: Path, said: tuple[OwnCard, ...], registry: Registry) -> None:
    """Have `registry` know the cards of the matrix file `path`; what it has from this file already stays.

    Raises:
        ConfigurationError: a name is taken, or the backend of a card is not simulated.
    """
    plugin = f"matrix file {path}"
    known = registry.of(Profile)
    new = [each for each in said if each.name not in known or registry.plugin_of(known[each.name]) != plugin]

    def add(into: Registry) -> None:
        into.add(*(entry for each in new for entry in each.entries()))

    if new:
        registry.load(plugin, add, file=str(path))


class OwnTables(BaseModel):
    """The `[[cards]]` of a matrix file, whatever else is in it."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    cards: Annotated[tuple[OwnCard, ...], BeforeValidator(as_tuple), Field(max_length=100)] = ()


def register_table(path: Path, table: Mapping[str, object], registry: Registry) -> None:
    """Register what `table`, read from the matrix file `path`, describes.

    Raises:
        ValidationError: it is malformed.
        ConfigurationError: a name is taken, or the backend of a card is not simulated.
    """
    if KEY in table:
        register(path, OwnTables.model_validate({KEY: table[KEY]}).cards, registry)


def register_file(path: Path, registry: Registry) -> None:
    """The same for a file that another process has validated."""
    register_table(path, read(path), registry)
