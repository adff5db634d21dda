"""Defines the cards that can be simulated, what PyTorch reports of each, and how a user names one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Final

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.hardware.requirements import parse_memory
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.matrix.suggest import unknown
from pytest_llmdevice.matrix.vocabulary import indexed, torch_type

MAX_COUNT: Final = 8
"""The cards of one large server; `"auto"` maps over more are not a placement question of their own."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A machine with `count` equal cards.

    Attributes:
        name: how a user calls it: `"cuda"`, `"cuda-t4"`.
        kind: the kind of device in a matrix: `"cuda"`, `"rocm"`, `"mps"`, `"xpu"`.
        card: the vendor's name, which `get_device_name` returns.
        memory: bytes of each card.
        capability: compute capability (major, minor) as `torch.cuda.get_device_capability` has it.
        architecture: the gfx name of an AMD card, `""` for others.
        processors: streaming multiprocessors or compute units.
        warp: threads that run in step.
        toolkit: the version in `torch.version.cuda`, `.hip` or `.xpu`.
        refused: dtypes that no tensor can have there.
        count: how many cards.
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

    @property
    def device_type(self) -> str:
        """PyTorch's name of the kind; a ROCm build calls its cards `cuda`."""
        return torch_type(self.kind)

    @property
    def indexed(self) -> bool:
        """Whether its devices are written with an index."""
        return indexed(self.kind)

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices in PyTorch's spelling: `("cuda:0", "cuda:1")`, `("mps:0",)`."""
        return tuple(f"{self.device_type}:{index}" for index in range(self.count))

    def covers(self, kind: str, device: str) -> bool:
        """Whether the machine has `device` (PyTorch's spelling) of `kind`."""
        return kind == self.kind and (device if ":" in device else f"{device}:0") in self.devices

    def __str__(self) -> str:
        return f"{self.name}:{self.count}" if self.indexed else self.name


_GIB: Final = 2**30

PROFILES: Final = (
    Profile("cuda", "cuda", "NVIDIA H100 80GB HBM3", 80 * _GIB, (9, 0), processors=132, toolkit="13.0"),
    Profile("cuda-t4", "cuda", "Tesla T4", 15 * _GIB, (7, 5), processors=40, toolkit="13.0"),
    Profile(
        "rocm", "rocm", "AMD Instinct MI300X", 192 * _GIB, (9, 4), "gfx942", processors=304, warp=64, toolkit="7.0"
    ),
    Profile("rocm-dcu", "rocm", "K100_AI", 64 * _GIB, (9, 2), "gfx928", processors=120, warp=64, toolkit="6.3"),
    Profile("mps", "mps", "Apple M3 Max", 36 * _GIB, processors=40, refused=("float64", "complex128")),
    Profile("xpu", "xpu", "Intel(R) Data Center GPU Max 1550", 64 * _GIB, processors=512, toolkit="20250301"),
)
"""Memory, names and processors are the vendors' data sheets'; only memory and capability steer anything."""


def parse(text: str) -> Profile:
    """`"cuda"`, `"cuda:2"`, `"cuda-t4:2,memory=16GiB"` as a profile; the count is 1 unless given.

    Raises:
        ConfigurationError: an unknown profile or setting, a count outside 1 to 8, memory that is no size.
    """
    head, *settings = (part.strip() for part in text.split(","))
    name, colon, count = head.partition(":")
    known = current().of(Profile)
    if name not in known:
        raise ConfigurationError(unknown("simulation profile", name, known))
    profile = known[name]
    if colon:
        profile = replace(profile, count=_count(text, profile, count))
    for setting in settings:
        key, _, value = setting.partition("=")
        if key != "memory":
            raise ConfigurationError(f"simulation {text!r}: {unknown('setting', key, ['memory'])}")
        profile = replace(profile, memory=_memory(text, value))
    return profile


def _count(text: str, profile: Profile, count: str) -> int:
    if not (count.isascii() and count.isdecimal() and 1 <= int(count) <= MAX_COUNT):
        raise ConfigurationError(
            f"simulation {text!r}: the count of cards is {count!r}, it must be a number from 1 to {MAX_COUNT} "
            f"(such as {profile.name}:2)"
        )
    if int(count) > 1 and not profile.indexed:
        raise ConfigurationError(
            f"simulation {text!r}: a machine has one {profile.kind} device, write {profile.name!r}"
        )
    return int(count)


def _memory(text: str, value: str) -> int:
    try:
        memory = parse_memory(value)
    except ConfigurationError as error:
        raise ConfigurationError(f"simulation {text!r}: {error}") from None
    if memory < 1:
        raise ConfigurationError(f"simulation {text!r}: a card needs some memory")
    return memory
