"""Handles torch functions that put their result on another device than their input."""

from __future__ import annotations

from typing import Any, Final, cast

import torch
from torch.utils._python_dispatch import _disable_current_modes

from pytest_llmdevice.simulation.functions import CPU, FunctionMode
from pytest_llmdevice.simulation.tags import is_wrapper, unintercepted

_Tensor = torch.Tensor


def move(
    mode: FunctionMode,
    tensor: torch.Tensor,
    device: torch.device,
    dtype: torch.dtype | None = None,
    *,
    copy: bool = False,
    memory_format: torch.memory_format | None = None,
) -> torch.Tensor:
    """`tensor.to(device, dtype)`; like PyTorch's it returns the tensor itself if nothing changes.

    Raises:
        NotImplementedError: the tensor is on meta and has no data.
        RuntimeError: there is no such card, or it is full.
        TypeError: a dtype that the card does not support.
    """
    target = mode.machine.resolve(device)
    source = mode.device_of(tensor)
    wanted = tensor.dtype if dtype is None else dtype
    layout = {} if memory_format is None else {"memory_format": memory_format}
    if target == source and wanted == tensor.dtype and not copy and not layout:
        return tensor
    if target.type not in ("cpu", "meta", mode.machine.device_type):
        # A device that is not simulated: PyTorch raises its own error.
        return cast(torch.Tensor, mode.run(_Tensor.to, (tensor, target), {}))
    if target.type == "meta" or source.type == "meta":
        if target.type not in ("meta", source.type):
            raise NotImplementedError("Cannot copy out of meta tensor; no data!")
        return cast(torch.Tensor, mode.run(_Tensor.to, (tensor, target), {"dtype": wanted, "copy": copy, **layout}))
    if is_wrapper(tensor):
        # Its class moves what it wraps. `Tensor.to` would have C++ look for the card's driver first.
        result: torch.Tensor = torch.ops.aten._to_copy.default(tensor, dtype=wanted, device=target, **layout)
    elif target == source:
        result = mode.run(_Tensor.to, (tensor,), {"dtype": wanted, "copy": copy, **layout})
    else:
        result = mode.run(_Tensor.to, (tensor, CPU), {"dtype": wanted, "copy": True, **layout})
        mode.tags.place(result, target)
    if target.type == mode.machine.device_type and not is_wrapper(result):
        mode.check_dtype(result, target, computed=target == source)
        mode.tags.put(result, target)
    if result.grad_fn is not None and target != source:
        _send_gradient_back(mode, result.grad_fn, source)
    return result


def _send_gradient_back(mode: FunctionMode, node: Any, source: torch.device) -> None:
    """Tag the gradient of a moved tensor with the source device: to C++, both are on the CPU and nothing moved."""

    def hook(gradients: tuple[torch.Tensor | None, ...], _: Any) -> tuple[torch.Tensor | None, ...]:
        with _disable_current_modes(), unintercepted():
            copies = tuple(None if gradient is None else gradient.clone() for gradient in gradients)
        if source.type == mode.machine.device_type:
            mode.tags.put_all(copies, source)
        return copies

    node.register_hook(hook)


def tensor_to(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.to` in all its forms: a device, a dtype, both, or another tensor."""
    # The commonest forms first, as a fast path. `non_blocking` changes nothing.
    tensor = args[0]
    if len(args) + len(kwargs) - ("non_blocking" in kwargs) == 2 and not mode.machine.needs_full_path:
        wanted = args[1] if len(args) > 1 else kwargs.get("dtype", kwargs.get("device"))
        if isinstance(wanted, torch.dtype):
            result = func(*args, **kwargs)
            if result is tensor or (placement := mode.tags.placement(tensor)) is None:
                return result
            return mode.tags.put(result, placement.device)
        if wanted.__class__ in _DEVICES:
            placement = mode.tags.placement(tensor)
            if placement is not None and placement.device is mode.cards.get(wanted):
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
        device = mode.device_of(other)
        dtype = other.dtype
    elif rest and (rest[0] is None or isinstance(rest[0], torch.dtype)):
        dtype = rest.pop(0)
    # The remaining arguments are non_blocking, which changes nothing, and copy.
    if len(rest) > 1:
        copy = rest[1]
    if device is None:
        source = mode.tags.of(tensor)
        if source is None:
            return mode.run(func, args, kwargs)
        device = source
    return move(mode, tensor, device, dtype, copy=copy, memory_format=memory_format)


def tensor_cuda(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.cuda(device)` and `Tensor.xpu(device)`.

    Raises:
        RuntimeError: PyTorch's, for a device of another type.
    """
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


def tensor_cpu(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.cpu()`."""
    return move(mode, args[0], CPU, memory_format=kwargs.get("memory_format"))


def tensor_type_as(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.type_as(other)`: the dtype and the device of `other`."""
    other = args[1] if len(args) > 1 else kwargs["other"]
    return tensor_to(mode, _Tensor.to, (args[0], other), {})


def tensor_type(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.type()` returns the type's name; `type("torch.cuda.HalfTensor")` and `type(dtype)` convert."""
    tensor, *rest = args
    wanted = rest[0] if rest else kwargs.get("dtype")
    source = mode.tags.of(tensor)
    if wanted is None:
        name: str = mode.run(func, args, kwargs)
        return name if source is None else name.replace("torch.", f"torch.{source.type}.", 1)
    if isinstance(wanted, torch.dtype):
        return move(mode, tensor, source or tensor.device, wanted)
    text = wanted if isinstance(wanted, str) else f"{wanted.__module__}.{wanted.__name__}"
    prefix = f"torch.{mode.machine.device_type}."
    plain = mode.run(func, (tensor, text.replace(prefix, "torch.", 1)), {})
    device = torch.device(mode.machine.device_type) if text.startswith(prefix) else CPU
    return move(mode, tensor, device, plain.dtype)


def torch_as_tensor(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.as_tensor` and `torch.asarray`: they return a tensor uncopied if its device and dtype are right."""
    data = args[0] if args else kwargs.get("data", kwargs.get("obj"))
    device = kwargs.get("device")
    if device is None:
        device = mode.default_card()
    if isinstance(data, torch.Tensor):
        target = device if device is not None else mode.tags.of(data)
        if target is None:
            return mode.run(func, args, kwargs)
        return move(mode, data, target, kwargs.get("dtype"), copy=bool(kwargs.get("copy")))
    return mode.run(func, args, kwargs) if device is None else mode.create(func, args, kwargs, device)


def torch_tensor(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.tensor`: a copied tensor keeps its device; a list of tensors is read as numbers and does not."""
    data = args[0] if args else kwargs.get("data")
    device = kwargs.get("device")
    if device is None:
        device = mode.default_card()
    if device is None and isinstance(data, torch.Tensor):
        device = mode.tags.of(data)
    return mode.run(func, args, kwargs) if device is None else mode.create(func, args, kwargs, device)


def tensor_new_tensor(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.new_tensor`: on the device of the tensor whose method it is, whatever device the data are on."""
    device = kwargs.get("device")
    if device is None:
        device = mode.tags.of(args[0])
    return mode.run(func, args, kwargs) if device is None else mode.create(func, args, kwargs, device)


def tensor_pin_memory(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.pin_memory()`: a copy that stays on the CPU.

    Raises:
        RuntimeError: PyTorch's, for a tensor on a card.
    """
    tensor = args[0]
    source = mode.tags.of(tensor)
    if source is not None:
        name = mode.run(_Tensor.type, (tensor,), {}).replace("torch.", f"torch.{source.type}.", 1)
        raise RuntimeError(f"cannot pin '{name}' only dense CPU tensors can be pinned")
    return tensor if mode.tags.is_pinned(tensor) else mode.tags.pin(tensor.clone())


_DEVICES: Final = frozenset({torch.device, str, int})


def _names_device(value: Any) -> bool:
    return isinstance(value, (str, torch.device)) or (isinstance(value, int) and not isinstance(value, bool))
