"""Contexts of torch that may be left entered: the default device, modes that see every call, autocast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from pytest_llmdevice.monitoring.change import Change, Comparison

Modes = tuple[list[Any], list[Any]]

AUTOCAST_DEVICES: Final = ("cpu", "cuda", "xpu", "mps")


def modes() -> Comparison:
    """The stacks of modes, and the default device, which is one of them."""
    from torch.utils import _device

    before, current, context = _stacks(), _device.CURRENT_DEVICE, _default_context()
    device = _device_of(before)

    def compare() -> Iterator[Change]:
        after = _stacks()
        if _same(before, after) and _default_context() is context:
            return
        _restack(before, after)
        _device.CURRENT_DEVICE = current
        _contexts().device_context = context
        if _device_of(after) != device:
            yield Change("device", "default device", device, _device_of(after))
        known = {id(mode) for stack in before for mode in stack}
        for mode in (mode for stack in after for mode in stack):
            if id(mode) not in known and not isinstance(mode, _device.DeviceContext):
                yield Change("mode", type(mode).__name__, "not entered", "entered and not left")

    return compare


def _device_of(stacks: Modes) -> str:
    """Where tensors are made under these modes: as the innermost context of a device says."""
    from torch.utils._device import DeviceContext

    return next((str(mode.device) for mode in reversed(stacks[0]) if isinstance(mode, DeviceContext)), "cpu")


def _default_context() -> Any:
    return getattr(_contexts(), "device_context", None)


def _contexts() -> Any:
    """Where `torch.set_default_device` keeps the mode that it entered."""
    import torch

    return torch._GLOBAL_DEVICE_CONTEXT  # noqa: SLF001


def _stacks() -> Modes:
    """The function modes and the dispatch modes, each from the outermost to the innermost."""
    from torch import overrides
    from torch.utils import _python_dispatch

    functions: Any = overrides._get_current_function_mode_stack  # noqa: SLF001
    return list(functions()), list(_python_dispatch._get_current_dispatch_mode_stack())  # noqa: SLF001


def _same(before: Sequence[Sequence[Any]], after: Sequence[Sequence[Any]]) -> bool:
    return [list(map(id, stack)) for stack in before] == [list(map(id, stack)) for stack in after]


def _restack(before: Modes, after: Modes) -> None:
    from torch.overrides import _pop_mode, _push_mode
    from torch.utils import _python_dispatch

    own: Any = ((_pop_mode, _push_mode), (_python_dispatch._pop_mode, _python_dispatch._push_mode))  # noqa: SLF001
    for (pop, push), wanted, there in zip(own, before, after, strict=True):
        for _ in there:
            pop()
        for mode in wanted:
            push(mode)


def autocast() -> Comparison:
    """Whether autocast is on, for each type of device, and its dtype."""
    import torch

    before, depth = _autocast(), _depth()

    def compare() -> Iterator[Change]:
        after = _autocast()
        if after == before and _depth() == depth:
            return
        for kind, (enabled, dtype) in before.items():
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, dtype)
        while _depth() > depth:
            torch.autocast_decrement_nesting()
        torch.clear_autocast_cache()
        for kind, (enabled, dtype) in before.items():
            if after[kind] != (enabled, dtype):
                yield Change("autocast", f"autocast on {kind}", _words(enabled, dtype), _words(*after[kind]))

    return compare


def _autocast() -> dict[str, tuple[bool, Any]]:
    import torch

    return {kind: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in AUTOCAST_DEVICES}


def _depth() -> int:
    """How many autocast contexts are entered."""
    import torch

    depth: int = torch.autocast_increment_nesting() - 1
    torch.autocast_decrement_nesting()
    return depth


def _words(enabled: bool, dtype: Any) -> str:
    return str(dtype).removeprefix("torch.") if enabled else "off"
