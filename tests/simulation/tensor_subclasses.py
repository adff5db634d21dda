"""Tensor subclasses of every make: how the instance is made, and what its `__torch_function__` does.

`kinds()` are all of them, `USES` is what is done with one. Nothing here knows of a simulation.
"""

# mypy: disable-error-code="override, no-untyped-call"
from __future__ import annotations

import copy
import io
from collections.abc import Callable
from functools import cache
from itertools import product
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._pytree import tree_map


class _Unwraps(torch.Tensor):
    """Computes on the tensor that it wraps, and wraps the result."""

    inner: Any
    options: dict[str, Any] = {}  # noqa: RUF012

    @staticmethod
    def __new__(cls: Any, inner: torch.Tensor) -> Any:
        layout: dict[str, Any] = {"dtype": inner.dtype, "device": inner.device, "requires_grad": inner.requires_grad}
        return torch.Tensor._make_wrapper_subclass(cls, inner.size(), inner.stride(), **layout, **cls.options)

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner.detach()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(lambda value: value.inner if isinstance(value, cls) else value, (args, kwargs or {}))
        result = func(*args, **kwargs)
        return tree_map(lambda value: cls(value) if isinstance(value, torch.Tensor) else value, result)

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @classmethod
    def __tensor_unflatten__(cls, tensors: Any, _: None, __: Any, ___: Any) -> Any:
        return cls(tensors["inner"])

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild, (self.style, self.make, self.inner)

    style = make = ""


class _AsksItsClass(_Unwraps):
    options = {"dispatch_device": True}  # noqa: RUF012

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return args[0].inner.device
        return super().__torch_dispatch__(func, types, args, kwargs)


class _Same(torch.Tensor):
    """Shares the storage of a tensor."""

    style = make = ""


class _MadeOf(_Same):
    @staticmethod
    def __new__(cls: Any, data: torch.Tensor) -> Any:
        return torch.Tensor._make_subclass(cls, data, data.requires_grad)


class _Cast(_Same):
    @staticmethod
    def __new__(cls: Any, data: torch.Tensor) -> Any:
        return data.as_subclass(cls)


_MAKES = {"wraps": _Unwraps, "asks its class": _AsksItsClass, "made of": _MadeOf, "cast": _Cast, "constructed": _Same}


def _no_subclass(cls: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    with torch._C.DisableTorchFunctionSubclass():
        return func(*args, **(kwargs or {}))


def _nothing(cls: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    with torch._C.DisableTorchFunction():
        return func(*args, **(kwargs or {}))


def _inherited(cls: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    return super(cls, cls).__torch_function__(func, types, args, kwargs or {})


_STYLES: dict[str, Any] = {
    "default": None,
    "disabled": torch._C._disabled_torch_function_impl,
    "without subclasses": classmethod(_no_subclass),
    "without modes": classmethod(_nothing),
    "super": classmethod(_inherited),
}


@cache
def kind(style: str, make: str) -> Any:
    """The class of one style and make."""
    function = _STYLES[style]
    members = {"style": style, "make": make} | ({} if function is None else {"__torch_function__": function})
    return type("Kind", (_MAKES[make],), members)


def kinds() -> list[tuple[str, str]]:
    """All styles and makes."""
    return list(product(_STYLES, _MAKES))


def _rebuild(style: str, make: str, inner: torch.Tensor) -> Any:
    return kind(style, make)(inner)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Any) -> Any:  # noqa: ARG004
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:  # noqa: ARG004
        return gradient


def _linear(tensor: Any) -> Any:
    layer = torch.nn.Linear(4, 4, bias=False, device=tensor.device)
    layer.weight = torch.nn.Parameter(tensor, requires_grad=False)
    return layer(torch.ones(2, 4, device=tensor.device))


def _moved_layer(to: str) -> Callable[[Any], Any]:
    def move(tensor: Any) -> Any:
        layer = torch.nn.Linear(4, 4, bias=False)
        layer.weight = torch.nn.Parameter(tensor, requires_grad=False)
        return layer.to(to).weight

    return move


def _saved(tensor: Any) -> Any:
    file = io.BytesIO()
    torch.save(tensor, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def _with_gradient(tensor: Any) -> Any:
    leaf = tensor.detach().requires_grad_()
    (leaf * 2).sum().backward()
    return leaf.grad


USES: dict[str, Callable[[Any], Any]] = {
    "itself": lambda tensor: tensor,
    "detach": lambda tensor: tensor.detach(),
    "data": lambda tensor: tensor.data,
    "parameter": lambda tensor: torch.nn.Parameter(tensor, requires_grad=False),
    "parameter with gradient": torch.nn.Parameter,
    "buffer": torch.nn.Buffer,
    "clone": lambda tensor: tensor.clone(),
    "view": lambda tensor: tensor.view(-1),
    "transpose": lambda tensor: tensor.t(),
    "index": lambda tensor: tensor[0],
    "slice": lambda tensor: tensor[:, 1:],
    "sum": lambda tensor: tensor.sum(),
    "add": lambda tensor: tensor + 1,
    "add itself": lambda tensor: tensor + tensor,
    "matmul": lambda tensor: tensor @ torch.ones(4, 4, device=tensor.device),
    "linear": lambda tensor: torch.nn.functional.linear(torch.ones(2, 4, device=tensor.device), tensor),
    "softmax": lambda tensor: torch.nn.functional.softmax(tensor, -1),
    "layer": _linear,
    "half": lambda tensor: tensor.to(torch.float16),
    "to cpu": lambda tensor: tensor.to("cpu"),
    "cpu": lambda tensor: tensor.cpu(),
    "layer to cpu": _moved_layer("cpu"),
    "empty_like": torch.empty_like,
    "new_zeros": lambda tensor: tensor.new_zeros(3),
    "zeros there": lambda tensor: torch.zeros(3, device=tensor.device),
    "deepcopy": copy.deepcopy,
    "saved": _saved,
    "function": _Function.apply,
    "function with gradient": lambda tensor: _Function.apply(tensor.requires_grad_()),
    "gradient": _with_gradient,
    "chunk": lambda tensor: tensor.chunk(2)[1],
    "no gradient": lambda tensor: torch.no_grad()(lambda: tensor * 2)(),
}


def outcome(use: str, tensor: Any) -> Any:
    """Where the result of a use is, inside and out, and of which class; or the class of the error."""
    try:
        result = USES[use](tensor)
    except Exception as error:  # noqa: BLE001
        return SimpleNamespace(kind=type(error).__name__, device=None, inner=None, error=error)
    inner = result.__dict__.get("inner") if isinstance(result, torch.Tensor) else None
    where = None if inner is None else str(inner.device)
    return SimpleNamespace(kind=type(result).__name__, device=str(result.device), inner=where, error=None)
