"""Functions that tell where a tensor is, or that behave otherwise there."""

from __future__ import annotations

from typing import Any

import torch

from pytest_llmdevice.errors import SimulationError
from pytest_llmdevice.simulation.functions import Functions
from pytest_llmdevice.simulation.representation import with_device


def get_device(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.get_device()`: the index, -1 on the CPU."""
    here = mode.tags.of(args[0] if args else kwargs["input"])
    return func(*args, **kwargs) if here is None else here.index


def is_on(kind: str) -> Any:
    """`Tensor.is_cuda` and its like."""

    def answer(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        here = mode.tags.of(args[0])
        return func(*args) if here is None else here.type == kind

    return answer


def new_device(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.device(1)`: a number means the accelerator, which C++ does not know of."""
    if len(args) == 1 and not kwargs and isinstance(args[0], int) and not isinstance(args[0], bool):
        mode.machine.check(args[0])
        return torch.device(mode.machine.device_type, args[0])
    return func(*args, **kwargs)


def parse_to(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The arguments of `nn.Module.to`, where a number means the accelerator as well, and a tensor its place."""
    example = kwargs.get("tensor", args[0] if args else None)
    if isinstance(example, torch.Tensor):
        _, *others = func(*args, **kwargs)
        return mode.place_of(example), *others
    if args and isinstance(args[0], int) and not isinstance(args[0], bool):
        args = (torch.device(mode.machine.device_type, args[0]), *args[1:])
    if isinstance(kwargs.get("device"), int):
        kwargs = dict(kwargs, device=torch.device(mode.machine.device_type, kwargs["device"]))
    return func(*args, **kwargs)


def numpy(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.numpy` and `__array__`: NumPy cannot read a card."""
    force = kwargs.get("force", False)
    here = mode.tags.of(args[0])
    if here is not None and not force:
        raise TypeError(
            f"can't convert {here} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory "
            "first."
        )
    return mode.run(func, args, kwargs)


def represent(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`repr`: PyTorch's, with the device and that it is a simulated one."""
    here = mode.tags.of(args[0])
    if here is None:
        return mode.run(func, args, kwargs)
    return with_device(lambda: mode.run(func, args, kwargs), here)


def format_(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`format(tensor)`: a number where it holds one, else as `repr`."""
    here = mode.tags.of(args[0])
    if here is None or args[0].dim() == 0:
        return mode.run(func, args, kwargs)
    return with_device(lambda: mode.run(func, args, kwargs), here)


def share_memory_outside(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """DLPack and CUDA's array interface: another library would find the CPU's memory behind a card's tensor."""
    here = mode.tags.of(args[0])
    if here is not None:
        raise SimulationError(
            f"a tensor of the simulated {here} cannot be handed to another library: copy it to the CPU"
        )
    return mode.run(func, args, kwargs)


def is_pinned(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.is_pinned()`."""
    return mode.tags.is_pinned(args[0])


def is_shared(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.is_shared()`: always so on a card."""
    return mode.tags.of(args[0]) is not None or mode.run(func, args, kwargs)


def share_memory(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.share_memory_()`: nothing to do on a card."""
    return args[0] if mode.tags.of(args[0]) is not None else mode.run(func, args, kwargs)


def record_stream(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.record_stream`: nothing runs beside anything here."""
    return None if mode.tags.of(args[0]) is not None else mode.run(func, args, kwargs)


def set_gradient(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`tensor.grad = gradient`: beside its tensor."""
    tensor, gradient = args
    if isinstance(gradient, torch.Tensor):
        here, there = (mode.place_of(value) for value in (tensor, gradient))
        if here.type != there.type:
            raise RuntimeError(
                f"attempting to assign a gradient with device type '{there.type}' to a tensor with device type "
                f"'{here.type}'. Please ensure that the gradient and the tensor are on the same device"
            )
        if here != there:
            raise RuntimeError(
                f"attempting to assign a gradient located on device with index '{there.index}' to a tensor located "
                f"on device with index '{here.index}'. Please ensure that the gradient and the tensor are on the same "
                "device"
            )
    return mode.run(func, args, kwargs)
