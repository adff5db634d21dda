"""Measures the time, the CPU use and the memory on host and cards that a load or a generation takes.

No test depends on these values, which differ from machine to machine. They are recorded to compare runs.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import psutil

from pytest_llmdevice.matrix.vocabulary import dtype_name
from pytest_llmdevice.model.device_map import with_index
from pytest_llmdevice.model.doors import device_of, dtype_of, held_bytes

if TYPE_CHECKING:
    from torch import nn

INTERVAL: Final = 0.01
"""Seconds between two samples of the memory of the process. A peak that is shorter may be missed."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory in use in one place, in bytes.

    Attributes:
        place: `"host"` (the resident memory of this process) or a device with its index: `"cuda:1"`, `"mps"`.
        before: in use at the start.
        after: in use at the end.
        peak: the maximum in between. For a card its allocator counts it; for the host it is the maximum of samples
            every 10 ms; for MPS, which counts no peak, it is the larger of the two other values.
    """

    place: str
    before: int
    after: int
    peak: int

    def __str__(self) -> str:
        return f"{self.place} {_mib(self.before)} -> {_mib(self.after)} MiB, peak {_mib(self.peak)}"


@dataclass(frozen=True, slots=True)
class Measures:
    """The time and memory that one call took.

    Attributes:
        seconds: wall time, including the wait for the cards to finish.
        cpu_percent: CPU time in percent of one core: 200 means two busy cores.
        host: the memory of this process.
        host_percent: the share of the machine's memory that all processes used at the end, in percent.
        cards: the memory of each card that was used, in the order of their indices.
        summary: how many tensors of the model are on which device, from `summarize_tensors`; empty without a model.
    """

    seconds: float
    cpu_percent: float
    host: Memory
    host_percent: float
    cards: tuple[Memory, ...] = ()
    summary: str = ""

    def properties(self, doing: str) -> dict[str, float | int | str]:
        """Flat `llm.*` properties for reporters, in seconds, percent, bytes and text.

        Args:
            doing: the activity that was measured, the first word of every name: `llm.load_seconds`,
                `llm.load_memory_cuda0_peak`.
        """
        properties: dict[str, float | int | str] = {
            "seconds": round(self.seconds, 4),
            "cpu_percent": round(self.cpu_percent, 1),
            "host_percent": self.host_percent,
        }
        for memory in (self.host, *self.cards):
            place = memory.place.replace(":", "")
            properties |= {f"memory_{place}_{when}": getattr(memory, when) for when in ("before", "after", "peak")}
        if self.summary:
            properties["devices"] = self.summary
        return {f"llm.{doing}_{name}": value for name, value in properties.items()}

    def __str__(self) -> str:
        places = "; ".join(map(str, (self.host, *self.cards)))
        return f"{self.seconds:.3f} s, {self.cpu_percent:.0f} % of a core; {places}" + (
            f"; {self.summary}" if self.summary else ""
        )


class Meter:
    """A context that measures the code inside; `measures` is set on leaving, also after an exception.

    The peaks that the cards' allocators count are reset at the start.

    Attributes:
        measures: the result.
    """

    measures: Measures

    def __enter__(self) -> Self:
        self._process = psutil.Process()
        self._cards = _allocated()
        for device, backend in _initialized_cards():
            with suppress(RuntimeError):
                backend.reset_peak_memory_stats(device)
        self._rss = self._host_peak = self._process.memory_info().rss
        self._stopped = threading.Event()
        self._sampler = threading.Thread(target=self._sample_host, name="llmdevice-memory", daemon=True)
        self._sampler.start()
        self._cpu_time, self._started = time.process_time(), time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _synchronize()
        seconds, cpu_time = time.perf_counter() - self._started, time.process_time() - self._cpu_time
        self._stopped.set()
        self._sampler.join()
        rss = self._process.memory_info().rss
        host = Memory("host", self._rss, rss, max(self._rss, rss, self._host_peak))
        percent = 100 * cpu_time / seconds if seconds else 0.0
        self.measures = Measures(seconds, percent, host, psutil.virtual_memory().percent, self._card_memory())

    def _sample_host(self) -> None:
        while not self._stopped.wait(INTERVAL):
            self._host_peak = max(self._host_peak, self._process.memory_info().rss)

    def _card_memory(self) -> tuple[Memory, ...]:
        memories = []
        peaks = {}
        for device, backend in _initialized_cards():
            with suppress(RuntimeError):
                peaks[device] = backend.max_memory_allocated(device)
        for device, after in _allocated().items():
            before = self._cards.get(device, 0)
            peak = max(before, after, peaks.get(device, 0))
            if peak:
                memories.append(Memory(device, before, after, peak))
        return tuple(memories)


def summarize_tensors(model: nn.Module) -> str:
    """The parameters and buffers of `model`, and their bytes, by device and dtype.

    `"cuda:0: 21 bfloat16 and 2 float32 tensors, 215.5 KiB; meta: 9 bfloat16 tensors, no data"`. A tensor with several
    names is counted once.
    """
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}.values()
    counts: dict[str, Counter[str]] = {}
    held: Counter[str] = Counter()
    for tensor in tensors:
        place = with_index(device_of(tensor))
        counts.setdefault(place, Counter())[dtype_name(dtype_of(tensor))] += 1
        held[place] += 0 if tensor.is_meta else held_bytes(tensor)
    return "; ".join(
        f"{place}: {' and '.join(f'{count} {dtype}' for dtype, count in of.items())} tensors, "
        + (_size(held[place]) if held[place] else "no data")
        for place, of in sorted(counts.items())
    )


def _allocated() -> dict[str, int]:
    """Device -> bytes that tensors hold there, for cards that are initialized already and for MPS."""
    import torch

    allocated = {}
    for device, backend in _initialized_cards():
        with suppress(RuntimeError):
            allocated[device] = backend.memory_allocated(device)
    if torch.backends.mps.is_available():
        allocated["mps"] = torch.mps.current_allocated_memory()
    return allocated


def _initialized_cards() -> list[tuple[str, Any]]:
    """The cards that are initialized and whose allocator counts, with their module `torch.cuda` or `torch.xpu`."""
    import torch

    backends = (("cuda", torch.cuda), ("xpu", torch.xpu))
    return [
        (f"{kind}:{index}", backend)
        for kind, backend in backends
        if backend.is_initialized()
        for index in range(backend.device_count())
    ]


def _synchronize() -> None:
    """Wait for the cards to finish. Errors of a lost card are ignored: a later call reports them in its own place."""
    for device, backend in _initialized_cards():
        with suppress(RuntimeError):
            # A card without memory in use has no work to wait for, and synchronizing it would create a context on it.
            if backend.memory_allocated(device):
                backend.synchronize(device)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f}"


def _size(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"
