"""Where a tensor is said to be: a mark on its storage.

C++ only ever sees tensors of the CPU. The mark is an attribute of the storage's Python object, which PyTorch keeps
for as long as the storage lives, so that views, `detach`, `.data`, `nn.Parameter` and the parameter classes of
bitsandbytes share it without any help, and the memory is given back when the last of them is gone.
"""

from __future__ import annotations

import itertools
from typing import Any, Final

import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.memory import BLOCK, Pool

_numbers = itertools.count()
_storage_of = torch.Tensor.untyped_storage
_real_device = torch._C.StorageBase.device.__get__  # type: ignore[attr-defined]


NO_STORAGE: Final = (NotImplementedError, RuntimeError, ValueError)
"""What asking a tensor without one for its storage raises: sparse, wrapped by a transform, not yet initialized."""


class Placement:
    """The mark: a storage's device, and its share of that device's memory until the storage is gone.

    One is made for every tensor that an operation returns, so that it is made with few steps: a class for each card
    holds what is the same for all (see `placements_on`), and the counts are kept without a call, also because Python
    does not switch threads in between.

    Attributes:
        block: bytes of the card that it holds.
        device: the card; `pool`: its memory.

    Raises:
        torch.OutOfMemoryError: on creation, when the card is full.
    """

    __slots__ = ("block",)
    device: torch.device
    pool: Pool

    def __init__(self, size: int) -> None:
        pool = self.pool
        self.block = block = (size + _REST) & _BLOCKS
        pool.allocated_sum += block
        pool.blocks_sum += 1
        pool.blocks += 1
        pool.allocated = allocated = pool.allocated + block
        if allocated > pool.unheard:
            try:
                pool.grow(size)
            except RuntimeError:
                # The traceback keeps this object alive for as long as the error is handled.
                self.__del__()
                self.block = 0
                pool.blocks += 1
                raise

    def __del__(self) -> None:
        pool = self.pool
        pool.allocated -= self.block
        pool.blocks -= 1

    def resize(self, size: int) -> None:
        """Hold `size` bytes from now on.

        Raises:
            torch.OutOfMemoryError: the card is full; it then holds what it held before.
        """
        before, self.block = self.block, (size + _REST) & _BLOCKS
        self.pool.allocated += self.block - before
        if self.pool.allocated > self.pool.unheard:
            try:
                self.pool.grow(size)
            except RuntimeError:
                self.pool.allocated += before - self.block
                self.block = before
                raise


_REST = BLOCK - 1
_BLOCKS = -BLOCK


def placements_on(device: torch.device, pool: Pool) -> type[Placement]:
    """The class of the marks of one card."""
    return type("Placement", (Placement,), {"__slots__": (), "device": device, "pool": pool})


class Tags:
    """Marks and reads storages. Call it only where torch functions are not intercepted.

    Attributes:
        on: the class of the marks of each card.
        name: the attribute of a storage that holds the mark; each simulation has its own, so that what an earlier
            one left on a storage means nothing.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.on = {device: placements_on(device, machine.pools[device.index]) for device in machine.devices}
        self.name = f"_llmdevice_placement_{next(_numbers)}"

    def of(self, tensor: torch.Tensor) -> torch.device | None:
        """Where `tensor` is said to be; None where C++ tells the truth: on the CPU or on meta."""
        placement = self.placement(tensor)
        return None if placement is None else placement.device

    def placement(self, tensor: torch.Tensor) -> Placement | None:
        """The mark on a tensor's storage, or None."""
        storage = storage_of(tensor)
        return None if storage is None else getattr(storage, self.name, None)

    def of_storage(self, storage: torch.UntypedStorage) -> torch.device | None:
        """Where a storage is said to be, or None."""
        placement = getattr(storage, self.name, None)
        return None if placement is None else placement.device

    def put(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Put a tensor on a card, unless it shares memory with one that is there already.

        Raises:
            torch.OutOfMemoryError: the card is full.
        """
        storage = storage_of(tensor)
        if storage is not None:
            self.put_storage(storage, device)
            if tensor.layout is torch.sparse_coo:
                self.put(tensor._indices(), device)
        return tensor

    def put_storage(self, storage: torch.UntypedStorage, device: torch.device) -> None:
        """Likewise for a storage. One on meta has no data that could be anywhere."""
        if getattr(storage, self.name, None) is None and _real_device(storage).type == "cpu":
            setattr(storage, self.name, self.on[device](storage.nbytes()))

    def place(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Put a tensor that was made for it on a card or on the CPU, whatever was concluded from its operands.

        Raises:
            torch.OutOfMemoryError: the card is full.
        """
        storage = storage_of(tensor)
        if storage is None:
            return tensor
        marks = storage.__dict__
        placement = marks.get(self.name)
        if placement is not None and placement.device != device:
            placement = None
            del marks[self.name]
        if placement is None and device.type == self.machine.device_type and not tensor.is_meta:
            marks[self.name] = self.on[device](storage.nbytes())
        return tensor

    def resized(self, tensor: torch.Tensor) -> None:
        """Count the memory of `tensor` again after an operation that may have changed its size."""
        placement, storage = self.placement(tensor), storage_of(tensor)
        if placement is not None and storage is not None:
            placement.resize(storage.nbytes())

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        """Note that a tensor of the CPU is in pinned memory."""
        storage = storage_of(tensor)
        if storage is not None:
            setattr(storage, f"{self.name}_pinned", True)
        return tensor

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        """Whether it is."""
        return getattr(storage_of(tensor), f"{self.name}_pinned", False)

    def put_all(self, result: Any, device: torch.device) -> Any:
        """Put every tensor of what an operation returned on a card."""
        if isinstance(result, torch.Tensor):
            self.put(result, device)
        elif isinstance(result, (tuple, list)):
            for part in result:
                self.put_all(part, device)
        return result


def storage_of(tensor: torch.Tensor) -> torch.UntypedStorage | None:
    """The storage that holds a tensor's values; None for one that has none."""
    try:
        return _storage_of(tensor)
    except NO_STORAGE:
        pass
    if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
        return _storage_of(tensor.data)
    functorch: Any = torch._C._functorch
    if functorch.is_functorch_wrapped_tensor(tensor):
        return storage_of(functorch.get_unwrapped(tensor))
    if tensor.layout is torch.sparse_coo:
        return storage_of(tensor._values())
    if tensor.layout in (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc):
        return storage_of(tensor.values())
    return None
