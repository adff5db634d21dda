"""Spells calls of PyTorch as cases: the function by its public name, tensors as operands, the rest as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import isinf, isnan
from typing import Any, Final

SPACES: Final = ("torch", "torch.nn.functional", "torch.special", "torch.linalg", "torch.fft", "torch.masked")
"""Where functions are looked for, by the names that people write."""

NAMES: Final = "abcdefgh"

LARGEST: Final = 4096
"""Elements of an operand, beyond which a case says no more than with fewer."""


class Unspellable(Exception):
    """The call has something in it that no text stands for."""


@dataclass(frozen=True, slots=True)
class Spelled:
    """A call as text.

    Attributes:
        code: an expression, in which `a`, `b`, ... are the operands.
        operands: name -> `"dtype shape"`.
    """

    code: str
    operands: dict[str, str]


@cache
def functions() -> Mapping[Any, str]:
    """Public function -> its name; methods of tensors as `".name"`."""
    import importlib

    import torch

    found: dict[Any, str] = {}
    for space in SPACES:
        module = importlib.import_module(space)
        short = "F" if space == "torch.nn.functional" else space
        for name in sorted(vars(module)):
            function = getattr(module, name)
            if callable(function) and not name.startswith("_") and not isinstance(function, type):
                found.setdefault(function, f"{short}.{name}")
    for name in sorted(dir(torch.Tensor)):
        function = getattr(torch.Tensor, name)
        if callable(function) and not name.startswith("__"):
            found.setdefault(function, f".{name}")
    return found


def spelled(function: Callable[..., Any], given: Sequence[Any], named: Mapping[str, Any]) -> Spelled:
    """The call `function(*given, **named)` as text.

    Raises:
        Unspellable: the function has no public name, an argument no text, or there are too many or too large operands.
    """
    try:
        name = functions().get(function)
    except TypeError:
        name = None
    if name is None:
        raise Unspellable(f"no public name: {function!r}")
    scope = _Scope()
    if name.startswith("."):
        own = scope.text(given[0])
        return Spelled(f"{own}{name}({scope.arguments(given[1:], named)})", scope.operands)
    return Spelled(f"{name}({scope.arguments(given, named)})", scope.operands)


def spelled_module(module: type, sample: Any, *, training: bool, place: bool) -> Spelled:
    """The call of a new module as text; where it has parameters, they are put where the last operand is, in its dtype.

    Args:
        module: its class.
        sample: of the database of modules: the arguments of the constructor, and those of the call.
        training: whether it stays in training mode.
        place: whether it has parameters or buffers.

    Raises:
        Unspellable: as for `spelled`.
    """
    from torch import nn

    if getattr(nn, module.__name__, None) is not module:
        raise Unspellable(f"no public name: {module!r}")
    scope = _Scope()
    made, given = sample.constructor_input, sample.forward_input
    call = scope.arguments(given.args, given.kwargs)
    code = f"m = nn.{module.__name__}({scope.arguments(made.args, made.kwargs)})" + ("" if training else ".eval()")
    if place:
        code += f".to({scope.place()})"
    return Spelled(f"{code}\nm({call})", scope.operands)


@dataclass(slots=True)
class _Scope:
    operands: dict[str, str] = field(default_factory=dict)

    def arguments(self, given: Sequence[Any], named: Mapping[str, Any]) -> str:
        texts = [self.text(value) for value in given]
        return ", ".join([*texts, *(f"{key}={self.text(value)}" for key, value in named.items())])

    def place(self) -> str:
        """An operand that says nothing but where something is to be, and in which dtype."""
        import torch

        return self._operand(torch.ones(1))

    def text(self, value: Any) -> str:
        import torch

        if isinstance(value, torch.Tensor):
            return self._operand(value)
        if isinstance(value, float) and (isnan(value) or isinf(value)):
            return f"float('{value}')"
        if value is None or isinstance(value, (bool, int, float, complex, str)):
            return repr(value)
        if value is Ellipsis:
            return "..."
        if isinstance(value, (torch.dtype, torch.memory_format, torch.layout)):
            return str(value)
        if isinstance(value, slice):
            return f"slice({', '.join(self.text(part) for part in (value.start, value.stop, value.step))})"
        if isinstance(value, list):
            return f"[{', '.join(map(self.text, value))}]"
        if isinstance(value, tuple):
            inner = ", ".join(map(self.text, value))
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        raise Unspellable(f"no text for {type(value).__name__}")

    def _operand(self, tensor: Any) -> str:
        import torch

        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_conj() or tensor.is_neg():
            raise Unspellable("an operand of another layout")
        if tensor.numel() > LARGEST or len(self.operands) == len(NAMES):
            raise Unspellable("too large")
        name = NAMES[len(self.operands)]
        shape = "x".join(map(str, tensor.shape)) or "0d"
        self.operands[name] = f"{str(tensor.dtype).removeprefix('torch.')} {shape}"
        return name


def called(function: Callable[..., Any], given: Sequence[Any], named: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """The one function of PyTorch that `function`, a lambda of a database, calls with its arguments: at most one."""
    from torch.overrides import TorchFunctionMode

    calls: list[tuple[Any, ...]] = []

    class First(TorchFunctionMode):
        def __torch_function__(self, inner: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls.append((inner, args, kwargs or {}))
            return inner(*args, **(kwargs or {}))

    try:
        with First():
            function(*given, **named)
    except Exception:  # noqa: BLE001 - what the database's own call raises says nothing here
        return
    if len(calls) == 1:
        yield calls[0]
