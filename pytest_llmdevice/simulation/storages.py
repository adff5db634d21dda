"""Makes `torch.UntypedStorage` report simulated devices, so that pickling, `torch.save` and `deepcopy` work."""

from __future__ import annotations

from typing import Any

import torch

from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.tags import Tags, unintercepted


def install(machine: Machine, tags: Tags, patches: Patches) -> None:
    """Make `torch.UntypedStorage` and `Tensor.set_` know the simulated devices."""
    storage_class: Any = torch.UntypedStorage
    real_device = torch._C.StorageBase.device.__get__  # type: ignore[attr-defined]
    real_new = storage_class.__new__
    real_resize = storage_class.resize_

    def storage_device(storage: Any) -> torch.device:
        simulated = tags.of_storage(storage)
        device: torch.device = real_device(storage) if simulated is None else simulated
        return device

    def new(cls: Any, *args: Any, **kwargs: Any) -> Any:
        device = kwargs.get("device")
        if device is None:
            return real_new(cls, *args, **kwargs)
        target = machine.resolve(device)
        if target.type != machine.device_type:
            return real_new(cls, *args, **kwargs)
        storage = real_new(cls, *args, **dict(kwargs, device="cpu"))
        tags.put_storage(storage, target)
        return storage

    def to(storage: Any, *, device: Any, non_blocking: bool = False) -> Any:
        target = machine.resolve(device)
        if target == storage.device:
            return storage
        return storage_class(storage.size(), device=target).copy_(storage, non_blocking)

    def cuda(storage: Any, device: Any = None, non_blocking: bool = False) -> Any:
        return to(storage, device="cuda" if device is None else device, non_blocking=non_blocking)

    def get_device(storage: Any) -> int:
        index = storage.device.index
        return -1 if index is None else int(index)

    def resize_(storage: Any, size: int) -> Any:
        placement = getattr(storage, tags.name, None)
        if placement is not None:
            placement.resize(size)
        return real_resize(storage, size)

    real_is_shared = storage_class.is_shared

    def is_shared(storage: Any) -> bool:
        return tags.of_storage(storage) is not None or real_is_shared(storage)

    _install_set(machine, tags, patches)
    patches.set(storage_class, "device", property(storage_device))
    patches.set(storage_class, "__new__", staticmethod(new))
    patches.set(storage_class, "to", to)
    patches.set(storage_class, "cuda", cuda)
    patches.set(storage_class, "get_device", get_device)
    patches.set(storage_class, "resize_", resize_)
    patches.set(storage_class, "is_shared", is_shared)


def _install_set(machine: Machine, tags: Tags, patches: Patches) -> None:
    """Make `Tensor.set_` accept only a storage on the same device; PyTorch does not send it to function modes."""
    real: Any = torch.Tensor.set_

    def set_(tensor: Any, source: Any = None, *args: Any, **kwargs: Any) -> Any:
        if not torch._C._len_torch_function_stack():
            # Inside a function that runs unwatched, every tensor is on the CPU.
            return real(tensor) if source is None else real(tensor, source, *args, **kwargs)
        with unintercepted():
            storage = tensor.untyped_storage()
            device = storage.device
            if source is None:
                result = real(tensor)
                return result if device.type != machine.device_type else tags.put(result, device)
            other = source.untyped_storage().device if isinstance(source, torch.Tensor) else source.device
            if device != other and storage.device.type != "meta":
                raise RuntimeError(
                    f'Attempted to set the storage of a tensor on device "{device}" to a storage on different device '
                    f'"{other}".  This is no longer allowed; the devices must match.'
                )
            return real(tensor, source, *args, **kwargs)

    patches.set(torch.Tensor, "set_", set_)
