"""The memory of a simulated card: how much of it tensors hold, and the error when there is no more."""

from __future__ import annotations

from dataclasses import dataclass

import torch

BLOCK = 512
"""Bytes to which PyTorch's CUDA allocator rounds every request (`kMinBlockSize`)."""

SEGMENT = 2 * 2**20
"""Bytes in which it asks the driver for memory (`kSmallBuffer`)."""


@dataclass
class Pool:
    """The memory of one card, in bytes.

    Attributes:
        index: the card's.
        device_type: PyTorch's name of its kind, for the text of the error.
        total: what the card has.
        allocated: held by tensors now; `allocated_peak` the most since the last reset.
        reserved: what the allocator has taken from the card and keeps until `empty_cache`.
        blocks: number of allocations now; `taken` and `freed` the sums since the start.
        failures: how often there was not enough.
        unheard: bytes up to which an allocation changes nothing but the counts.
        fraction: the share of the card that this process may use.
        at_reset: bytes allocated and reserved, and blocks, when the sums were last reset.
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
    unheard: int = 0
    at_reset: tuple[int, int, int] = (0, 0, 0)

    @property
    def free(self) -> int:
        """What the driver would call free: neither held nor cached."""
        return max(self.total - self.reserved, 0)

    def grow(self, size: int) -> None:
        """Take what the last allocation, of `size` bytes, needs beyond what was ever needed before.

        Raises:
            torch.OutOfMemoryError: the card has no room for it (on MPS a plain RuntimeError, as PyTorch's).
        """
        allocated = self.allocated
        if allocated > self.total * self.fraction:
            self.failures += 1
            raise self._exhausted(size)
        self.allocated_peak = max(self.allocated_peak, allocated)
        self.blocks_peak = max(self.blocks_peak, self.blocks)
        if allocated > self.reserved:
            reserved = min(-(-allocated // SEGMENT) * SEGMENT, self.total)
            self.reserved_sum += reserved - self.reserved
            self.reserved = reserved
            self.reserved_peak = max(self.reserved_peak, reserved)
        self._bound()

    def limit(self, fraction: float) -> None:
        """Let this process use no more than a share of the card."""
        self.fraction = fraction
        self._bound()

    def empty_cache(self) -> None:
        """Give what no tensor holds back to the card."""
        self.reserved = -(-self.allocated // SEGMENT) * SEGMENT
        self._bound()

    def reset_peaks(self) -> None:
        """The peaks are what is held now."""
        self.allocated_peak, self.reserved_peak, self.blocks_peak = self.allocated, self.reserved, self.blocks
        self._bound()

    def reset_sums(self) -> None:
        """Count from here on."""
        self.allocated_sum = self.reserved_sum = self.blocks_sum = self.failures = 0
        self.at_reset = (self.allocated, self.reserved, self.blocks)

    def _bound(self) -> None:
        self.unheard = min(self.allocated_peak, self.reserved, int(self.total * self.fraction))

    def _exhausted(self, size: int) -> RuntimeError:
        # The texts of CUDACachingAllocator.cpp, XPUCachingAllocator.cpp and MPSAllocator.mm.
        wanted = readable(size)
        held = self.allocated - -(-size // BLOCK) * BLOCK
        if self.device_type == "mps":
            return RuntimeError(
                f"MPS backend out of memory (MPS allocated: {readable(held)}, other allocations: 0 bytes, "
                f"max allowed: {readable(self.total)}). Tried to allocate {wanted} on private pool. Use "
                "PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable upper limit for memory allocations (may cause "
                "system failure)."
            )
        free = max(self.total - held, 0)
        return torch.OutOfMemoryError(
            f"{self.device_type.upper()} out of memory. Tried to allocate {wanted}. GPU {self.index} has a total "
            f"capacity of {readable(self.total)} of which {readable(free)} is free. Including non-PyTorch memory, "
            f"this process has {readable(held)} memory in use. Of the allocated memory "
            f"{readable(held)} is allocated by PyTorch, and 0 bytes is reserved by PyTorch but "
            "unallocated. (simulated card)"
        )


def readable(size: int) -> str:
    """A size as PyTorch's `format_size` writes it: `"20.00 MiB"`."""
    if size <= 1024:
        return f"{size} bytes"
    for unit, factor in (("KiB", 2**10), ("MiB", 2**20)):
        if size <= factor * 1024:
            return f"{size / factor:.2f} {unit}"
    return f"{size / 2**30:.2f} GiB"
