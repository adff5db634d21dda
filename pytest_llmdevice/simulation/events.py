"""Defines the event class of simulated cards, whose events keep the time of recording and are always complete."""

from __future__ import annotations

import ctypes
import time
from typing import Any, Self

import torch

from pytest_llmdevice.errors import SimulationError
from pytest_llmdevice.simulation.streams import Streams

# Inside a simulation `torch.Event` is the factory of `driver.streams`; this name stays PyTorch's class.
_RealEvent: Any = torch.Event


class CardEvent(torch.Event):
    """An event that keeps the time at which it was recorded, from the process's performance counter."""

    _streams: Streams
    _generic = True
    _card: torch.device | None
    _timing: bool
    _recorded: int | None
    _number: int

    def __new__(
        cls,
        device: torch.device | None = None,
        *,
        enable_timing: bool = False,
        blocking: bool = False,  # noqa: ARG004 - there is nothing to block for
        interprocess: bool = False,  # noqa: ARG004
        external: bool = False,  # noqa: ARG004
    ) -> Self:
        """An event that is not yet recorded."""
        self: Self = _RealEvent.__new__(cls, "cpu")
        self._card = device
        self._timing = enable_timing
        self._recorded = None
        self._number = 0
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    @property
    def device(self) -> torch.device | None:  # type: ignore[override]
        """The card of the stream in which it was first recorded; None before."""
        return self._card

    @property
    def event_id(self) -> int:  # type: ignore[override]
        """The number that stands for the event's handle; 0 before it is recorded."""
        return self._number

    cuda_event = sycl_event = event_id

    @property
    def _as_parameter_(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self._number)

    def record(self, stream: Any = None) -> None:
        """Keep the current time.

        Raises:
            RuntimeError: PyTorch's, for a stream on another card than the event's.
        """
        machine = self._streams.machine
        card = machine.devices[machine.current] if stream is None else stream.device
        if self._card is None:
            self._card = card
        elif self._card != card:
            raise RuntimeError(
                f"Event device {self._card.index} does not match recording stream's device {card.index}."
            )
        self._number = self._number or next(self._streams.numbers)
        self._recorded = time.perf_counter_ns()

    def wait(self, stream: Any = None) -> None:
        """Do nothing: the event is complete already."""

    def query(self) -> bool:
        """Whether the event is complete: always."""
        return True

    def synchronize(self) -> None:
        """Do nothing: the event is complete already."""

    def elapsed_time(self, end_event: Any) -> float:
        """Milliseconds from this event to `end_event`.

        Raises:
            ValueError: PyTorch's, for an event that was made without timing or was not recorded.
        """
        if not (self._timing and end_event._timing):
            raise ValueError("Both events must be created with argument 'enable_timing=True'.")
        if self._recorded is None or end_event._recorded is None:
            raise ValueError("Both events must be recorded before calculating elapsed time.")
        return (end_event._recorded - self._recorded) / 1e6  # type: ignore[no-any-return]

    def ipc_handle(self) -> bytes:
        """Refuse to share the event with another process.

        Raises:
            SimulationError: always.
        """
        raise SimulationError("an event of a simulated card cannot be shared with another process")

    @classmethod
    def from_ipc_handle(cls, device: Any, handle: Any) -> CardEvent:  # noqa: ARG003
        """Refuse to open an event of another process.

        Raises:
            SimulationError: always.
        """
        raise SimulationError("an event of a simulated card cannot be shared with another process")

    def __repr__(self) -> str:
        kind = self._streams.machine.device_type
        if type(self)._generic:
            index = -1 if self._card is None else self._card.index
            return f"torch.Event device_type={kind}, device_index={index}, event_flag={int(self._timing)}"
        if kind == "xpu":
            return f"torch.xpu.Event({f'sycl_event={self._number:#x}' if self._number else 'uninitialized'})"
        return f"<torch.cuda.Event {f'{self._number:#x}' if self._number else 'uninitialized'}>"
