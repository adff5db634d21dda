"""Functions that make a tensor somewhere else than its source is."""

from __future__ import annotations

from typing import Any, Final, cast

import torch
from torch.utils._python_dispatch import _disable_current_modes

from pytest_llmdevice.simulation.functions import CPU, Functions

_Tensor = torch.Tensor


def move(
    mode: Functions,
    tensor: torch.Tensor,
    device: torch.device,
    dtype: torch.dtype | None = None,
    *,
    copy: bool = False,
    memory_format: torch.memory_format | None = None,
) -> torch.Tensor:
    """`tensor.to(device, dtype)`: the tensor itself where nothing changes, as PyTorch's.

    Raises:
        NotImplementedError: the tensor is on meta and has no data.
        RuntimeError: there is no such card, or it is full.
    """
    target = mode.machine.resolve(device)
    here = mode.place_of(tensor)
    wanted = tensor.dtype if dtype is None else dtype
    layout = {} if memory_format is None else {"memory_format": memory_format}
    if target == here and wanted == tensor.dtype and not copy and not layout:
        return tensor
    if target.type not in ("cpu", "meta", mode.machine.device_type):
        # Nobody simulates it: PyTorch says that it is not there.
        return cast(torch.Tensor, mode.run(_Tensor.to, (tensor, target), {}))
    if target.type == "meta" or here.type == "meta":
        if target.type not in ("meta", here.type):
            raise NotImplementedError("Cannot copy out of meta tensor; no data!")
        return cast(torch.Tensor, mode.run(_Tensor.to, (tensor, target), {"dtype": wanted, "copy": copy, **layout}))
    if target == here:
        result: torch.Tensor = mode.run(_Tensor.to, (tensor,), {"dtype": wanted, "copy": copy, **layout})
    else:
        result = mode.run(_Tensor.to, (tensor, CPU), {"dtype": wanted, "copy": True, **layout})
        mode.tags.place(result, target)
    if target.type == mode.machine.device_type:
        mode.refuse(result)
        mode.tags.put(result, target)
    if result.grad_fn is not None and target != here:
        _send_gradient_back(mode, result.grad_fn, here)
    return result


def _send_gradient_back(mode: Functions, node: Any, source: torch.device) -> None:
    """Have the gradient of a moved tensor go back to where the tensor came from: C++ sees no move there."""

    def hook(gradients: tuple[torch.Tensor | None, ...], _: Any) -> tuple[torch.Tensor | None, ...]:
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            copies = tuple(None if gradient is None else gradient.clone() for gradient in gradients)
        if source.type == mode.machine.device_type:
            mode.tags.put_all(copies, source)
        return copies

    node.register_hook(hook)


def to(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.to` in all its forms: a device, a dtype, both, or another tensor."""
    # The commonest forms first, with few steps. `non_blocking` changes nothing.
    tensor = args[0]
    if len(args) + len(kwargs) - ("non_blocking" in kwargs) == 2 and not mode.machine.careful:
        wanted = args[1] if len(args) > 1 else kwargs.get("dtype", kwargs.get("device"))
        if isinstance(wanted, torch.dtype):
            result = func(*args, **kwargs)
            if result is tensor or (mark := mode.tags.placement(tensor)) is None:
                return result
            return mode.tags.put(result, mark.device)
        if wanted.__class__ in _DEVICES:
            mark = mode.tags.placement(tensor)
            if mark is not None and mark.device is mode.known.get(wanted):
                return tensor
    rest = list(args[1:])
    device, dtype = kwargs.get("device"), kwargs.get("dtype")
    copy, memory_format = kwargs.get("copy", False), kwargs.get("memory_format")
    other = kwargs.get("tensor")
    if rest and isinstance(rest[0], torch.Tensor):
        other = rest.pop(0)
    elif rest and not isinstance(rest[0], (torch.dtype, bool)) and (rest[0] is None or _names_device(rest[0])):
        device = rest.pop(0)
    if other is not None:
        device = mode.place_of(other)
        dtype = other.dtype
    elif rest and (rest[0] is None or isinstance(rest[0], torch.dtype)):
        dtype = rest.pop(0)
    # What is left are non_blocking, which changes nothing, and copy.
    if len(rest) > 1:
        copy = rest[1]
    if device is None:
        here = mode.tags.of(tensor)
        if here is None:
            return mode.run(func, args, kwargs)
        device = here
    return move(mode, tensor, device, dtype, copy=copy, memory_format=memory_format)


def cuda(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.cuda(device)` and `Tensor.xpu(device)`."""
    device = args[1] if len(args) > 1 else kwargs.get("device")
    kind = func.__name__
    if kind != mode.machine.device_type:
        return mode.run(func, args, kwargs)
    if device is None:
        device = torch.device(kind)
    elif isinstance(device, int):
        device = torch.device(kind, device)
    elif torch.device(device).type != kind:
        raise RuntimeError(f"Invalid device, must be {kind} device")
    return move(mode, args[0], device, memory_format=kwargs.get("memory_format"))


def cpu(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.cpu()`."""
    return move(mode, args[0], CPU, memory_format=kwargs.get("memory_format"))


def as_type(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.type_as(other)`: its dtype and its place."""
    other = args[1] if len(args) > 1 else kwargs["other"]
    return to(mode, _Tensor.to, (args[0], other), {})


def type_name(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.type()`, and `Tensor.type("torch.cuda.HalfTensor")` or a dtype."""
    tensor, *rest = args
    wanted = rest[0] if rest else kwargs.get("dtype")
    here = mode.tags.of(tensor)
    if wanted is None:
        name: str = mode.run(func, args, kwargs)
        return name if here is None else name.replace("torch.", f"torch.{here.type}.", 1)
    if isinstance(wanted, torch.dtype):
        return move(mode, tensor, here or tensor.device, wanted)
    text = wanted if isinstance(wanted, str) else f"{wanted.__module__}.{wanted.__name__}"
    prefix = f"torch.{mode.machine.device_type}."
    plain = mode.run(func, (tensor, text.replace(prefix, "torch.", 1)), {})
    device = torch.device(mode.machine.device_type) if text.startswith(prefix) else CPU
    return move(mode, tensor, device, plain.dtype)


def as_tensor(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.as_tensor` and `torch.asarray`: of a tensor they make no copy where none is needed."""
    data = args[0] if args else kwargs.get("data", kwargs.get("obj"))
    device = kwargs.get("device")
    if device is None:
        device = mode.default_device()
    if isinstance(data, torch.Tensor):
        target = device if device is not None else mode.tags.of(data)
        if target is None:
            return mode.run(func, args, kwargs)
        return move(mode, data, target, kwargs.get("dtype"), copy=bool(kwargs.get("copy")))
    return mode.run(func, args, kwargs) if device is None else mode.create(func, args, kwargs, device)


def new_tensor(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.tensor`: on the device of a tensor that it copies, but of a list of tensors it reads the values."""
    data = args[0] if args else kwargs.get("data")
    device = kwargs.get("device")
    if device is None:
        device = mode.default_device()
    if device is None and isinstance(data, torch.Tensor):
        device = mode.tags.of(data)
    return mode.run(func, args, kwargs) if device is None else mode.create(func, args, kwargs, device)


def new_tensor_beside(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.new_tensor`: beside the tensor whose method it is, wherever the data are."""
    device = kwargs.get("device")
    if device is None:
        device = mode.tags.of(args[0])
    return mode.run(func, args, kwargs) if device is None else mode.create(func, args, kwargs, device)


def pin_memory(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.pin_memory()`: a copy that stays on the CPU."""
    tensor = args[0]
    here = mode.tags.of(tensor)
    if here is not None:
        name = mode.run(_Tensor.type, (tensor,), {}).replace("torch.", f"torch.{here.type}.", 1)
        raise RuntimeError(f"cannot pin '{name}' only dense CPU tensors can be pinned")
    return tensor if mode.tags.is_pinned(tensor) else mode.tags.pin(tensor.clone())


_DEVICES: Final = frozenset({torch.device, str, int})


def _names_device(value: Any) -> bool:
    return isinstance(value, (str, torch.device)) or (isinstance(value, int) and not isinstance(value, bool))
