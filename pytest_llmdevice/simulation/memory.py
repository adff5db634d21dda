"""Counts the memory that tensors hold on a simulated card, and raises PyTorch's error when it is full."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import torch

BLOCK = 512
"""Bytes to which PyTorch's CUDA allocator rounds every request (`kMinBlockSize`)."""

SEGMENT = 2 * 2**20
"""Bytes of one segment that the allocator requests from the driver (`kSmallBuffer`)."""


@dataclass
class Pool:
    """The memory of one card. Sizes are in bytes.

    Each of `allocated`, `reserved` and `blocks` has a `_peak`, the maximum since the last reset of the peaks, and a
    `_sum`, the total of all increases since the last reset of the sums.

    Attributes:
        index: the card's index.
        device_type: PyTorch's name of the card's type, for the text of the error.
        total: the card's memory.
        allocated: bytes that tensors hold now.
        reserved: bytes that the allocator has taken from the card and keeps until `empty_cache`.
        blocks: the number of allocations now.
        failures: how many allocations failed.
        fraction: the share of the card that this process may use.
        fast_limit: as long as `allocated` stays at or below it, an allocation changes only counters.
        at_reset: bytes allocated, bytes reserved, and blocks when the sums were last reset.
        explain: says of the bytes that are held which modules hold them, for the error of a full card.
    """

    index: int
    device_type: str
    total: int
    allocated: int = 0
    allocated_peak: int = 0
    allocated_sum: int = 0
    reserved: int = 0
    reserved_peak: int = 0
    reserved_sum: int = 0
    blocks: int = 0
    blocks_peak: int = 0
    blocks_sum: int = 0
    failures: int = 0
    fraction: float = 1.0
    fast_limit: int = 0
    at_reset: tuple[int, int, int] = (0, 0, 0)
    explain: Callable[[int], str] | None = field(default=None, repr=False, compare=False)

    @property
    def free(self) -> int:
        """Bytes that the driver would report as free: neither held by tensors nor cached."""
        return max(self.total - self.reserved, 0)

    def grow(self, size: int) -> None:
        """Update peaks and reserved memory after an allocation of `size` bytes that passed `fast_limit`.

        Raises:
            torch.OutOfMemoryError: the card is full (on MPS a plain RuntimeError, as in PyTorch).
        """
        allocated = self.allocated
        if allocated > self.total * self.fraction:
            self.failures += 1
            raise self._explained(self._exhausted(size), size)
        self.allocated_peak = max(self.allocated_peak, allocated)
        self.blocks_peak = max(self.blocks_peak, self.blocks)
        if allocated > self.reserved:
            reserved = min(-(-allocated // SEGMENT) * SEGMENT, self.total)
            self.reserved_sum += reserved - self.reserved
            self.reserved = reserved
            self.reserved_peak = max(self.reserved_peak, reserved)
        self._set_fast_limit()

    def limit(self, fraction: float) -> None:
        """Let this process use no more than a share of the card."""
        self.fraction = fraction
        self._set_fast_limit()

    def empty_cache(self) -> None:
        """Return reserved memory that no tensor holds to the card."""
        self.reserved = -(-self.allocated // SEGMENT) * SEGMENT
        self._set_fast_limit()

    def reset_peaks(self) -> None:
        """Set the peaks to the current values."""
        self.allocated_peak, self.reserved_peak, self.blocks_peak = self.allocated, self.reserved, self.blocks
        self._set_fast_limit()

    def reset_sums(self) -> None:
        """Set the sums to zero."""
        self.allocated_sum = self.reserved_sum = self.blocks_sum = self.failures = 0
        self.at_reset = (self.allocated, self.reserved, self.blocks)

    def _set_fast_limit(self) -> None:
        self.fast_limit = min(self.allocated_peak, self.reserved, int(self.total * self.fraction))

    def _explained(self, error: RuntimeError, size: int) -> RuntimeError:
        """`error`, with a note on what fills the card. PyTorch's text stays as it is."""
        if self.explain is not None:
            # Whatever objects there are in the process, the error is that the card is full.
            with suppress(Exception):
                if note := self.explain(self._held(size)):
                    error.add_note(note)
        return error

    def _held(self, size: int) -> int:
        """The bytes that were held before `size` more were asked for."""
        return self.allocated - -(-size // BLOCK) * BLOCK

    def _exhausted(self, size: int) -> RuntimeError:
        # The texts of CUDACachingAllocator.cpp, XPUCachingAllocator.cpp and MPSAllocator.mm.
        wanted = format_size(size)
        held = self._held(size)
        if self.device_type == "mps":
            return RuntimeError(
                f"MPS backend out of memory (MPS allocated: {format_size(held)}, other allocations: 0 bytes, "
                f"max allowed: {format_size(self.total)}). Tried to allocate {wanted} on private pool. Use "
                "PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable upper limit for memory allocations (may cause "
                "system failure)."
            )
        free = max(self.total - held, 0)
        return torch.OutOfMemoryError(
            f"{self.device_type.upper()} out of memory. Tried to allocate {wanted}. GPU {self.index} has a total "
            f"capacity of {format_size(self.total)} of which {format_size(free)} is free. Including non-PyTorch "
            f"memory, this process has {format_size(held)} memory in use. Of the allocated memory "
            f"{format_size(held)} is allocated by PyTorch, and 0 bytes is reserved by PyTorch but "
            "unallocated. (simulated card)"
        )


def format_size(size: int) -> str:
    """A size in bytes as PyTorch's `format_size` writes it: `"20.00 MiB"`."""
    if size <= 1024:
        return f"{size} bytes"
    for unit, factor in (("KiB", 2**10), ("MiB", 2**20)):
        if size <= factor * 1024:
            return f"{size / factor:.2f} {unit}"
    return f"{size / 2**30:.2f} GiB"
