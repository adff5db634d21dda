"""Defines the stream class of simulated cards, whose streams have identities but run nothing."""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Callable
from typing import Any, Final, Self

import torch

from pytest_llmdevice.simulation.machine import Machine

CODES: Final = {"cuda": 1, "xpu": 12, "mps": 13}
"""The numbers of `c10::DeviceType`, as `Stream(device_type=...)` takes them."""

_PRIORITIES: Final = {"cuda": (0, -3), "xpu": (1, -1), "mps": (0, 0)}
"""The lowest and the highest priority, as `priority_range` returns them."""

# Inside a simulation `torch.Stream` is the factory of `driver.streams`; this name stays PyTorch's class.
_RealStream: Any = torch.Stream


class Streams:
    """The streams of one machine: the current one on each card in each thread.

    Attributes:
        machine: the machine.
        numbers: yields the ids of new streams and events.
        priorities: stream id -> priority.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.numbers = itertools.count(0x7F00_0000_0000, 0x10)
        self.priorities: dict[int, int] = {}
        self._local = threading.local()

    @property
    def code(self) -> int:
        """The number in `c10::DeviceType` of the cards' type."""
        return CODES[self.machine.device_type]

    def current(self, index: int) -> int:
        """The id of this thread's current stream on a card; 0 is the default stream."""
        self.machine.check_index(index)
        return getattr(self._local, "ids", {}).get(index, 0)  # type: ignore[no-any-return]

    def select(self, stream_id: int, index: int) -> None:
        """Make a stream current on its card, and the card the current card."""
        self.machine.current = index
        self._local.__dict__.setdefault("ids", {})[index] = stream_id

    def new(self, priority: int) -> int:
        """The id of a new stream with a priority, which is clipped to the supported range."""
        least, greatest = _PRIORITIES[self.machine.device_type]
        number = next(self.numbers)
        self.priorities[number] = min(max(priority, greatest), least)
        return number


class CardStream(torch.Stream):
    """A stream that has an identity and runs nothing. Its id is also the address of its handle."""

    _streams: Streams
    _event: Callable[[], Any]
    _generic = True
    _card: torch.device
    _number: int

    def __new__(
        cls,
        device: torch.device | str | int | None = None,
        priority: int = 0,
        *,
        stream_id: int | None = None,
        device_index: int | None = None,
        device_type: int | None = None,  # noqa: ARG004 - PyTorch passes it
        stream_ptr: int | None = None,
    ) -> Self:
        """A new stream, or an existing one by its id or by the address of its handle."""
        streams = cls._streams
        self: Self = _RealStream.__new__(cls, stream_id=0, device_index=0, device_type=0)
        if device_index is None:
            card = (
                streams.machine.devices[streams.machine.current] if device is None else _card(streams.machine, device)
            )
        else:
            streams.machine.check_index(device_index)
            card = streams.machine.devices[device_index]
        self._card = card
        if stream_id is None:
            stream_id = stream_ptr if stream_ptr is not None else streams.new(priority)
        self._number = stream_id
        return self

    # In a PyTorch without support for the cards, its own stream class is a base whose `__init__` raises.
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The card."""
        return self._card

    @property
    def device_index(self) -> int:  # type: ignore[override]
        """The index of the card."""
        return self._card.index

    @property
    def device_type(self) -> int:  # type: ignore[override]
        """The number in `c10::DeviceType` of the card's type."""
        return self._streams.code

    @property
    def stream_id(self) -> int:  # type: ignore[override]
        """PyTorch's id of the stream."""
        return self._number

    @property
    def priority(self) -> int:
        """The priority; lower numbers come first."""
        return self._streams.priorities.get(self._number, 0)

    @classmethod
    def priority_range(cls) -> tuple[int, int]:
        """The lowest and the highest priority."""
        return _PRIORITIES[cls._streams.machine.device_type]

    def native_handle(self) -> int:
        """The address of the stream's handle, which points to nothing."""
        return self._number

    cuda_stream = sycl_queue = property(native_handle)

    @property
    def _as_parameter_(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self._number)

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._number

    def query(self) -> bool:
        """Whether all work is complete: always."""
        return True

    def is_capturing(self) -> bool:
        """Whether a graph is being recorded: never."""
        return False

    def synchronize(self) -> None:
        """Do nothing: all work is complete already."""

    def wait_event(self, event: Any) -> None:
        """Make later work wait for `event`."""
        event.wait(self)

    def wait_stream(self, stream: Any) -> None:
        """Make later work wait for the work of `stream`."""
        self.wait_event(stream.record_event())

    def record_event(self, event: Any = None) -> Any:
        """Record `event`, or a new one, and return it."""
        if event is None:
            event = self._event()
        event.record(self)
        return event

    def __enter__(self) -> Self:
        streams, index = self._streams, self._card.index
        before = (streams.current(index), streams.machine.current)
        self.__dict__.setdefault("_entered", []).append(before)
        streams.select(self._number, index)
        return self

    def __exit__(self, *error: object) -> None:
        stream_id, card = self.__dict__["_entered"].pop()
        self._streams.select(stream_id, self._card.index)
        self._streams.machine.current = card

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CardStream) and (self._card, self._number) == (other._card, other._number)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((self._card, self._number))

    def __repr__(self) -> str:
        kind = self._card.type
        if type(self)._generic:
            return f"torch.Stream device_type={kind}, device_index={self._card.index}, stream_id={self._number}"
        if kind == "xpu":
            return f"torch.xpu.Stream(device={self._card} sycl_queue={self._number:#x})"
        return f"<torch.cuda.Stream device={self._card} cuda_stream={self._number:#x}>"


def _card(machine: Machine, device: torch.device | str | int) -> torch.device:
    if isinstance(device, int) and device < 0:
        return machine.devices[machine.current]
    card = machine.resolve(device)
    if card.type != machine.device_type:
        raise ValueError(f"Expected a {machine.device_type} device, but got: {card}")
    return card
