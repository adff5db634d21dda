"""Tags storages with the simulated device on which their tensors are.

C++ only sees CPU tensors. The tag is an attribute of the storage's Python object, which PyTorch keeps as long as the
storage exists. Therefore views, `detach`, `.data`, `nn.Parameter` and the parameter classes of bitsandbytes share it,
and the simulated memory is freed with the last of them.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any, Final, Self

import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from pytest_llmdevice.simulation import owners
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.memory import BLOCK, Pool

_numbers = itertools.count()
_storage_of = torch.Tensor.untyped_storage
_real_device = torch._C.StorageBase.device.__get__  # type: ignore[attr-defined]


unintercepted: Final = torch._C.DisableTorchFunction
"""The context in which no function mode is asked; `subclasses` replaces the name in PyTorch."""

PLAIN: Final[frozenset[Any]] = frozenset({torch.Tensor, torch.nn.Parameter})
"""The classes of tensors without code of their own."""

_DISPATCH_DISABLED: Final[Any] = torch._C._disabled_torch_dispatch_impl

_subclasses_disabled: Final = torch._C.DisableTorchFunctionSubclass

SHARD: Final = "_local_tensor"
"""The attribute of a `DTensor` with the part of it that this process has."""

NO_STORAGE: Final = (NotImplementedError, RuntimeError, ValueError)
"""What `untyped_storage` raises for a tensor without one: sparse, wrapped by a transform, not yet initialized."""


class Placement:
    """The tag of a storage: its device, and the memory that it holds there as long as the storage exists.

    Every tensor that an operation returns gets one, so creating it must be fast: a class for each card holds the
    attributes that are the same for all (see `placements_on`), and the counters are updated without a function call,
    which also keeps Python from switching threads in between.

    Attributes:
        block: bytes of the card that it holds.
        device: the card.
        pool: the card's memory.

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
        if allocated > pool.fast_limit:
            try:
                pool.grow(size)
            except RuntimeError:
                # The traceback keeps this object alive while the error is handled.
                self.__del__()
                self.block = 0
                pool.blocks += 1
                # Nothing was allocated.
                pool.allocated_sum -= block
                pool.blocks_sum -= 1
                raise

    @classmethod
    def without_memory(cls) -> Self:
        """The tag of a storage that has no data."""
        self = cls.__new__(cls)
        self.block = 0
        cls.pool.blocks += 1  # `__del__` takes it away
        return self

    def __del__(self) -> None:
        pool = self.pool
        pool.allocated -= self.block
        pool.blocks -= 1

    def resize(self, size: int) -> None:
        """Hold `size` bytes from now on.

        Raises:
            torch.OutOfMemoryError: the card is full; the size is unchanged.
        """
        before, self.block = self.block, (size + _REST) & _BLOCKS
        if self.block == before:
            return
        self.pool.allocated += self.block - before
        if self.pool.allocated > self.pool.fast_limit:
            try:
                self.pool.grow(size)
            except RuntimeError:
                self.pool.allocated += before - self.block
                self.block = before
                raise
        # Another block takes the place of the one before.
        self.pool.allocated_sum += self.block
        self.pool.blocks_sum += 1


_REST = BLOCK - 1
_BLOCKS = -BLOCK


def placements_on(device: torch.device, pool: Pool) -> type[Placement]:
    """The subclass of `Placement` for one card."""
    return type("Placement", (Placement,), {"__slots__": (), "device": device, "pool": pool})


class Tags:
    """Writes and reads the tags of storages. Its methods must be called where torch functions are not intercepted.

    Attributes:
        machine: what is simulated.
        placements: card -> the class of its placements.
        name: the attribute of a storage that holds the tag; every simulation has its own, so that it ignores the tags
            of earlier ones.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.placements = {device: placements_on(device, machine.pools[device.index]) for device in machine.places}
        self.name = f"_llmdevice_placement_{next(_numbers)}"
        for pool, device in zip(machine.pools, machine.places, strict=True):
            pool.explain = partial(self._explain, device)

    def _explain(self, device: torch.device, held: int) -> str:
        seen: set[int] = set()

        def holder(tensor: torch.Tensor) -> int:
            placement = self.placement(tensor)
            if placement is None or placement.device != device or id(placement) in seen:
                return 0
            seen.add(id(placement))
            return placement.block

        with unintercepted():
            return owners.described(holder, held)

    def of(self, tensor: torch.Tensor) -> torch.device | None:
        """The simulated device of a tensor; None for a tensor that really is on its device, the CPU or meta."""
        placement = self.placement(tensor)
        return None if placement is None else placement.device

    def placement(self, tensor: torch.Tensor) -> Placement | None:
        """The tag of a tensor's storage, or None."""
        storage = tensor_storage(tensor)
        return None if storage is None else getattr(storage, self.name, None)

    def of_storage(self, storage: torch.UntypedStorage) -> torch.device | None:
        """The simulated device of a storage, or None."""
        placement = getattr(storage, self.name, None)
        return None if placement is None else placement.device

    def put(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Put a tensor on a card, unless its storage is on one already.

        Raises:
            torch.OutOfMemoryError: the card is full.
        """
        storage = tensor_storage(tensor)
        if storage is not None:
            self.put_storage(storage, device)
            if tensor.layout is torch.sparse_coo:
                self.put(tensor._indices(), device)
            if tensor.__class__ not in PLAIN and (shard := getattr(tensor, SHARD, None)) is not None:
                # C++ computes with the shards of distributed tensors, where no mode is asked.
                self.put(shard, device)
        return tensor

    def put_storage(self, storage: torch.UntypedStorage, device: torch.device) -> None:
        """Put a storage on a card, unless it is on one already. A meta storage has no data and is left alone.

        Raises:
            torch.OutOfMemoryError: the card is full.
        """
        if getattr(storage, self.name, None) is None and _real_device(storage).type == "cpu":
            setattr(storage, self.name, self.placements[device](storage.nbytes()))

    def place(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Put a tensor on a device, also if its operands have already put it on another.

        Raises:
            torch.OutOfMemoryError: the card is full.
        """
        storage = tensor_storage(tensor)
        if storage is None:
            return tensor
        attributes = storage.__dict__
        placement = attributes.get(self.name)
        if placement is not None and placement.device != device:
            placement = None
            del attributes[self.name]
        if placement is None and device.type == self.machine.device_type and not tensor.is_meta:
            attributes[self.name] = self.placements[device](storage.nbytes())
        return tensor

    def wrap(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Put a tensor that only wraps others on a card: it holds no memory of its own."""
        storage = tensor_storage(tensor)
        if storage is not None:
            setattr(storage, self.name, self.placements[device].without_memory())
        return tensor

    def resized(self, tensor: torch.Tensor) -> None:
        """Update the memory of `tensor` after an operation that may have changed its size.

        Raises:
            torch.OutOfMemoryError: the card is full.
        """
        placement, storage = self.placement(tensor), tensor_storage(tensor)
        if placement is not None and storage is not None:
            placement.resize(storage.nbytes())

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        """Mark a CPU tensor as being in pinned memory."""
        storage = tensor_storage(tensor)
        if storage is not None:
            setattr(storage, f"{self.name}_pinned", True)
        return tensor

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor was marked by `pin`."""
        return getattr(tensor_storage(tensor), f"{self.name}_pinned", False)

    def put_all(self, result: Any, device: torch.device) -> Any:
        """Put every tensor in the result of an operation on a card.

        Raises:
            torch.OutOfMemoryError: the card is full.
        """
        if isinstance(result, torch.Tensor):
            self.put(result, device)
        elif isinstance(result, (tuple, list)):
            for part in result:
                self.put_all(part, device)
        return result


def is_wrapper(tensor: torch.Tensor) -> bool:
    """Whether the class of a tensor computes by itself, on the tensors that it wraps."""
    return tensor.__class__ not in PLAIN and type(tensor).__torch_dispatch__ is not _DISPATCH_DISABLED


def tensor_storage(tensor: torch.Tensor) -> torch.UntypedStorage | None:
    """The storage that holds a tensor's values, or None."""
    try:
        if tensor.__class__ in PLAIN:
            return _storage_of(tensor)
        # A subclass may have an answer of its own.
        with _subclasses_disabled():
            return _storage_of(tensor)
    except NO_STORAGE:
        pass
    if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
        return _storage_of(tensor.data)
    functorch: Any = torch._C._functorch
    if functorch.is_functorch_wrapped_tensor(tensor):
        return tensor_storage(functorch.get_unwrapped(tensor))
    if tensor.layout is torch.sparse_coo:
        return tensor_storage(tensor._values())
    if tensor.layout in (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc):
        return tensor_storage(tensor.values())
    return None
