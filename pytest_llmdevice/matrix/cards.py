"""Defines `Profile`, the cards of a machine that can be simulated, and how a table of a file describes one card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

from pytest_llmdevice.matrix.memory_size import parse_memory
from pytest_llmdevice.matrix.vocabulary import indexed, torch_type

BACKENDS: Final = {"cuda": "cuda", "hip": "rocm", "xpu": "xpu", "mps": "mps", "hpu": "hpu", "npu": "npu"}
"""PyTorch's backend -> the kind of its cards in a matrix."""

SIMULATED: Final = frozenset({"cuda", "hip", "xpu", "mps"})
"""The backends whose runtime is PyTorch's own, and is simulated."""

LACKS: Final = {
    "bfloat16": "bfloat16 is emulated",
    "float8": "no products in float8",
    "float64": "no float64",
}
"""What a card can lack -> how it is said."""

_FROM: Final = {"bfloat16": (8, 0), "float8": (8, 9)}
"""What NVIDIA's cards have from which compute capability on: `torch.cuda.is_bf16_supported`, and `_scaled_mm`."""

VENDORS: Final = {"cuda": "NVIDIA", "hip": "AMD", "xpu": "Intel", "mps": "Apple", "hpu": "Intel", "npu": "Huawei"}


@dataclass(frozen=True, slots=True)
class Slice:
    """A MIG instance, into which a card can be divided.

    Attributes:
        name: NVIDIA's: `"1g.10gb"`.
        memory: its bytes.
        processors: its streaming multiprocessors.
    """

    name: str
    memory: int
    processors: int


@dataclass(frozen=True, slots=True)
class Profile:
    """A machine with `count` equal cards, or with those in `mixed`.

    Attributes:
        name: how a user calls it: `"cuda"`, `"cuda-t4"`.
        kind: the kind of device in a matrix: `"cuda"`, `"rocm"`, `"mps"`, `"xpu"`.
        card: the name that the driver gives it, which `get_device_name` returns.
        memory: bytes of each card.
        capability: compute capability (major, minor) as `torch.cuda.get_device_capability` has it.
        architecture: the gfx name of an AMD card, `""` for others.
        processors: streaming multiprocessors or compute units.
        warp: threads that run in step.
        toolkit: the version in `torch.version.cuda`, `.hip` or `.xpu`.
        refused: dtypes that no tensor can have there.
        count: how many cards.
        vendor: who makes it.
        lacks: what it has not that others have: `"bfloat16"` (emulated), `"float8"`, `"float64"`.
        slices: the MIG instances that it can be divided into.
        slice: the name of the MIG instance that this is, `""` for a whole card.
        sources: (figure, where it is from) of each figure.
        mixed: the cards, one by one, of a machine whose cards differ.
        settings: what was set beyond the name, as it was written: `",memory=8GiB"`.
    """

    table: ClassVar[str] = "simulation profile"

    name: str
    kind: str
    card: str
    memory: int
    capability: tuple[int, int] = (0, 0)
    architecture: str = ""
    processors: int = 1
    warp: int = 32
    toolkit: str = ""
    refused: tuple[str, ...] = ()
    count: int = 1
    vendor: str = field(default="", compare=False)
    lacks: tuple[str, ...] = ()
    slices: tuple[Slice, ...] = ()
    slice: str = ""
    sources: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    mixed: tuple[Profile, ...] = ()
    settings: str = field(default="", compare=False)

    @property
    def device_type(self) -> str:
        """PyTorch's name of the kind; a ROCm build calls its cards `cuda`."""
        return torch_type(self.kind)

    @property
    def indexed(self) -> bool:
        """Whether its devices are written with an index."""
        return indexed(self.kind)

    @property
    def cards(self) -> tuple[Profile, ...]:
        """Its cards one by one, each as a machine with that card alone."""
        return self.mixed or (replace(self, count=1),) * self.count

    @property
    def lacking(self) -> tuple[str, ...]:
        """What a card of it lacks: what is said, and what follows from an NVIDIA card's capability."""
        if self.kind != "cuda":
            return self.lacks
        following = (name for name, first in _FROM.items() if self.capability < first)
        return tuple(dict.fromkeys((*self.lacks, *following)))

    @property
    def seen(self) -> int:
        """How many of its cards a process sees at once: of MIG instances one."""
        return 1 if any(card.slice for card in self.cards) else self.count

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices in PyTorch's spelling: `("cuda:0", "cuda:1")`, `("mps:0",)`."""
        return tuple(f"{self.device_type}:{index}" for index in range(self.seen))

    @property
    def spec(self) -> str:
        """The text that names this machine in another process, its settings too."""
        return f"{self}{self.settings}"

    def covers(self, kind: str, device: str) -> bool:
        """Whether the machine has `device` (PyTorch's spelling) of `kind`."""
        return kind == self.kind and (device if ":" in device else f"{device}:0") in self.devices

    def sliced(self, name: str) -> Profile | None:
        """The MIG instance `name` of this card; None where it has none of that name."""
        for part in self.slices:
            if part.name == name:
                return replace(
                    self,
                    name=f"{self.name}-{name}",
                    card=f"{self.card} MIG {name}",
                    memory=part.memory,
                    processors=part.processors,
                    slices=(),
                    slice=name,
                )
        return None

    def __str__(self) -> str:
        if self.mixed:
            return f"{self.kind}:{self.name}"
        return f"{self.name}:{self.count}" if self.indexed else self.name


def card_of(table: Mapping[str, Any], addresses: Mapping[str, str] | None = None) -> Profile:
    """The card that a table of a file describes; see `own_cards.OwnCard` for its keys, which must be right.

    Args:
        table: the table.
        addresses: name -> address, for the sources that are named.
    """
    backend = table["backend"]
    lacks = tuple(table.get("lacks", ()))
    named = addresses or {}
    return Profile(
        table["name"],
        BACKENDS[backend],
        table["card"],
        parse_memory(table["memory"]),
        tuple(table.get("capability", (0, 0))),
        table.get("architecture", ""),
        table.get("processors", 1),
        table.get("warp", 32),
        table.get("toolkit", ""),
        ("float64", "complex128") if "float64" in lacks else (),
        vendor=table.get("vendor", VENDORS[backend]),
        lacks=lacks,
        slices=tuple(
            Slice(name, parse_memory(part["memory"]), part["processors"])
            for name, part in table.get("slices", {}).items()
        ),
        sources=tuple((figure, named.get(said, said)) for figure, said in table.get("sources", {}).items()),
    )
