"""Handles torch functions that report the device of a tensor or behave differently on a card."""

from __future__ import annotations

from typing import Any

import torch

from pytest_llmdevice.errors import SimulationError
from pytest_llmdevice.simulation.functions import FunctionMode
from pytest_llmdevice.simulation.representation import repr_with_device


def tensor_get_device(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.get_device()`: the index, -1 on the CPU."""
    device = mode.tags.of(args[0] if args else kwargs["input"])
    return func(*args, **kwargs) if device is None else device.index


def is_device_type(kind: str) -> Any:
    """The handler of `Tensor.is_cuda`, `is_cpu`, `is_mps` or `is_xpu`."""

    def answer(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        device = mode.tags.of(args[0])
        return func(*args) if device is None else device.type == kind

    return answer


def torch_device(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.device(1)`: a number means the simulated accelerator, which C++ does not know."""
    if len(args) == 1 and not kwargs and isinstance(args[0], int) and not isinstance(args[0], bool):
        mode.machine.check_index(args[0])
        return torch.device(mode.machine.device_type, args[0])
    return func(*args, **kwargs)


def module_parse_to(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch._C._nn._parse_to`, which reads the arguments of `nn.Module.to`.

    A number means the accelerator, and a tensor stands for its own device and dtype.
    """
    example = kwargs.get("tensor", args[0] if args else None)
    if isinstance(example, torch.Tensor):
        _, *others = func(*args, **kwargs)
        return mode.device_of(example), *others
    if args and isinstance(args[0], int) and not isinstance(args[0], bool):
        args = (torch.device(mode.machine.device_type, args[0]), *args[1:])
    if isinstance(kwargs.get("device"), int):
        kwargs = dict(kwargs, device=torch.device(mode.machine.device_type, kwargs["device"]))
    return func(*args, **kwargs)


def tensor_numpy(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.numpy` and `__array__`: NumPy cannot read the memory of a card.

    Raises:
        TypeError: PyTorch's, for a tensor on a card, unless `force=True`.
    """
    force = kwargs.get("force", False)
    device = mode.tags.of(args[0])
    if device is not None and not force:
        raise TypeError(
            f"can't convert {device} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory "
            "first."
        )
    return mode.run(func, args, kwargs)


def tensor_repr(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`repr(tensor)`: PyTorch's text, with the device marked as simulated."""
    device = mode.tags.of(args[0])
    if device is None:
        return mode.run(func, args, kwargs)
    return repr_with_device(lambda: mode.run(func, args, kwargs), device)


def tensor_format(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`format(tensor)`: the number in a tensor without dimensions, else the same as `repr`."""
    device = mode.tags.of(args[0])
    if device is None or args[0].dim() == 0:
        return mode.run(func, args, kwargs)
    return repr_with_device(lambda: mode.run(func, args, kwargs), device)


def refuse_export(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """DLPack and `__cuda_array_interface__`: another library would read CPU memory as the card's.

    Raises:
        SimulationError: the tensor is on a simulated card.
    """
    device = mode.tags.of(args[0])
    if device is not None:
        raise SimulationError(
            f"a tensor of the simulated {device} cannot be handed to another library: copy it to the CPU"
        )
    return mode.run(func, args, kwargs)


def tensor_is_pinned(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.is_pinned()`: whether it was pinned inside the simulation."""
    return mode.tags.is_pinned(args[0])


def tensor_is_shared(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.is_shared()`: always true on a card."""
    return mode.tags.of(args[0]) is not None or mode.run(func, args, kwargs)


def tensor_share_memory(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.share_memory_()`: does nothing on a card."""
    return args[0] if mode.tags.of(args[0]) is not None else mode.run(func, args, kwargs)


def tensor_record_stream(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.record_stream`: does nothing, because simulated streams run nothing concurrently."""
    return None if mode.tags.of(args[0]) is not None else mode.run(func, args, kwargs)


def tensor_set_grad(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`tensor.grad = gradient`: the gradient must be on the tensor's device.

    Raises:
        RuntimeError: PyTorch's, for a gradient on another device.
    """
    tensor, gradient = args
    if isinstance(gradient, torch.Tensor):
        here, there = (mode.device_of(value) for value in (tensor, gradient))
        if here.type != there.type:
            raise RuntimeError(
                f"attempting to assign a gradient with device type '{there.type}' to a tensor with device type "
                f"'{here.type}'. Please ensure that the gradient and the tensor are on the same device"
            )
        if here != there:
            # PyTorch 2.13 prints the numbers of the cards as characters, and what follows a 0 is lost.
            text = (
                f"attempting to assign a gradient located on device with index '{chr(there.index)}' to a tensor "
                f"located on device with index '{chr(here.index)}'. Please ensure that the gradient and the tensor "
                "are on the same device"
            )
            raise RuntimeError(text.partition("\0")[0])
    return mode.run(func, args, kwargs)
