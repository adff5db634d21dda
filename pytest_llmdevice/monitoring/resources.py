"""What a load or a generation took: time, processor, the memory of the host and of every card; and what lies where.

Nothing here decides a test: wall times and memory differ from machine to machine. They are recorded, so that a run
can be compared with another one.
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

from pytest_llmdevice.model.device_map import with_index

if TYPE_CHECKING:
    from torch import nn

INTERVAL: Final = 0.01
"""Seconds between two looks at the memory of the process. What lives shorter than that may go unseen."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of one place, in bytes.

    Attributes:
        place: `"host"` (what this process has in RAM) or a device with its index: `"cuda:1"`, `"mps"`.
        before: held at the start.
        after: held at the end.
        peak: the most that was held meanwhile. Of a card, what its allocator counted; of the host, the largest of what
            was seen every 10 ms; of MPS, which counts none, the larger of the two others.
    """

    place: str
    before: int
    after: int
    peak: int

    def __str__(self) -> str:
        return f"{self.place} {_mib(self.before)} -> {_mib(self.after)} MiB, peak {_mib(self.peak)}"


@dataclass(frozen=True, slots=True)
class Measures:
    """What one call took.

    Attributes:
        seconds: of wall time, to the end of what the cards were still doing.
        cpu_percent: of one core: 200 is two cores at work all the time.
        host: the memory of this process.
        host_percent: how much of the machine's memory was in use at the end, by anybody.
        cards: the memory of each card that held something, in the order of their indices.
        summary: which tensors of the model lie where, from `summarize`; empty where there is no model.
    """

    seconds: float
    cpu_percent: float
    host: Memory
    host_percent: float
    cards: tuple[Memory, ...] = ()
    summary: str = ""

    def properties(self, doing: str) -> dict[str, float | int | str]:
        """Flat `llm.*` properties for reporters: seconds, percent, bytes and text.

        Args:
            doing: what was measured, the first word of each name: `llm.load_seconds`, `llm.load_memory_cuda0_peak`.
        """
        found: dict[str, float | int | str] = {
            "seconds": round(self.seconds, 4),
            "cpu_percent": round(self.cpu_percent, 1),
            "host_percent": self.host_percent,
        }
        for memory in (self.host, *self.cards):
            place = memory.place.replace(":", "")
            found |= {f"memory_{place}_{when}": getattr(memory, when) for when in ("before", "after", "peak")}
        if self.summary:
            found["devices"] = self.summary
        return {f"llm.{doing}_{name}": value for name, value in found.items()}

    def __str__(self) -> str:
        places = "; ".join(map(str, (self.host, *self.cards)))
        return f"{self.seconds:.3f} s, {self.cpu_percent:.0f} % of a core; {places}" + (
            f"; {self.summary}" if self.summary else ""
        )


class Meter:
    """A context that measures what is done in it; afterwards, also after an exception, `measures` says it.

    The peaks that the allocators of the cards count are reset at the start.
    """

    measures: Measures

    def __enter__(self) -> Self:
        self._process = psutil.Process()
        self._cards = _allocated()
        for device, backend in _counting():
            with suppress(RuntimeError):
                backend.reset_peak_memory_stats(device)
        self._rss = self._highest = self._process.memory_info().rss
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, name="llmdevice-memory", daemon=True)
        self._watch.start()
        self._busy, self._started = time.process_time(), time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _synchronize()
        seconds, busy = time.perf_counter() - self._started, time.process_time() - self._busy
        self._over.set()
        self._watch.join()
        rss = self._process.memory_info().rss
        host = Memory("host", self._rss, rss, max(self._rss, rss, self._highest))
        percent = 100 * busy / seconds if seconds else 0.0
        self.measures = Measures(seconds, percent, host, psutil.virtual_memory().percent, self._of_cards())

    def _look(self) -> None:
        while not self._over.wait(INTERVAL):
            self._highest = max(self._highest, self._process.memory_info().rss)

    def _of_cards(self) -> tuple[Memory, ...]:
        found = []
        peaks = {}
        for device, backend in _counting():
            with suppress(RuntimeError):
                peaks[device] = backend.max_memory_allocated(device)
        for device, after in _allocated().items():
            before = self._cards.get(device, 0)
            peak = max(before, after, peaks.get(device, 0))
            if peak:
                found.append(Memory(device, before, after, peak))
        return tuple(found)


def summarize(model: nn.Module) -> str:
    """The parameters and buffers of `model`, and their bytes, by device and dtype.

    `"cuda:0: 21 bfloat16 and 2 float32 tensors, 215.5 KiB; meta: 9 bfloat16 tensors, no data"`; what several names
    share is counted once.
    """
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}.values()
    counts: dict[str, Counter[str]] = {}
    held: Counter[str] = Counter()
    for tensor in tensors:
        place = with_index(tensor.device)
        counts.setdefault(place, Counter())[str(tensor.dtype).removeprefix("torch.")] += 1
        held[place] += 0 if tensor.is_meta else tensor.nbytes
    return "; ".join(
        f"{place}: {' and '.join(f'{count} {dtype}' for dtype, count in of.items())} tensors, "
        + (_size(held[place]) if held[place] else "no data")
        for place, of in sorted(counts.items())
    )


def _allocated() -> dict[str, int]:
    """Bytes that tensors hold on each card, by its name, and on MPS. A library that sleeps is not woken up."""
    import torch

    found = {}
    for device, backend in _counting():
        with suppress(RuntimeError):
            found[device] = backend.memory_allocated(device)
    if torch.backends.mps.is_available():
        found["mps"] = torch.mps.current_allocated_memory()
    return found


def _counting() -> list[tuple[str, Any]]:
    """The cards in use whose allocator counts, each with `torch.cuda` or `torch.xpu`."""
    import torch

    backends = (("cuda", torch.cuda), ("xpu", torch.xpu))
    return [
        (f"{kind}:{index}", backend)
        for kind, backend in backends
        if backend.is_initialized()
        for index in range(backend.device_count())
    ]


def _synchronize() -> None:
    """Wait for what the cards are doing. One that was lost raises elsewhere, where it is somebody's finding."""
    for device, backend in _counting():
        with suppress(RuntimeError):
            # Of a card that holds nothing there is nothing to wait for, and to ask would make a context on it.
            if backend.memory_allocated(device):
                backend.synchronize(device)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f}"


def _size(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"
