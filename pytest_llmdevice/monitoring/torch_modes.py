"""Detects and reverts torch contexts that were entered and not left: default device, modes, autocast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from pytest_llmdevice.matrix.vocabulary import dtype_name
from pytest_llmdevice.monitoring.change import Change, Comparison

Modes = tuple[list[Any], list[Any]]

AUTOCAST_DEVICES: Final = ("cpu", "cuda", "xpu", "mps")


def torch_modes() -> Comparison:
    """Watch the stacks of modes, and with them the default device, which torch keeps as a mode."""
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
    """The default device under these modes, which the innermost device context sets."""
    from torch.utils._device import DeviceContext

    return next((str(mode.device) for mode in reversed(stacks[0]) if isinstance(mode, DeviceContext)), "cpu")


def _default_context() -> Any:
    return getattr(_contexts(), "device_context", None)


def _contexts() -> Any:
    """The object in which `torch.set_default_device` keeps the mode that it entered."""
    import torch

    return torch._GLOBAL_DEVICE_CONTEXT  # noqa: SLF001


def _stacks() -> Modes:
    """The stack of function modes and the stack of dispatch modes, from the outermost to the innermost mode."""
    from torch import overrides
    from torch.utils import _python_dispatch

    functions: Any = overrides._get_current_function_mode_stack  # noqa: SLF001
    return list(functions()), list(_python_dispatch._get_current_dispatch_mode_stack())  # noqa: SLF001


def _same(before: Sequence[Sequence[Any]], after: Sequence[Sequence[Any]]) -> bool:
    return [list(map(id, stack)) for stack in before] == [list(map(id, stack)) for stack in after]


def _restack(before: Modes, after: Modes) -> None:
    from torch.overrides import _pop_mode, _push_mode
    from torch.utils import _python_dispatch

    calls: Any = ((_pop_mode, _push_mode), (_python_dispatch._pop_mode, _python_dispatch._push_mode))  # noqa: SLF001
    for (pop, push), earlier, current in zip(calls, before, after, strict=True):
        for _ in current:
            pop()
        for mode in earlier:
            push(mode)


def autocast_state() -> Comparison:
    """Watch whether autocast is on and its dtype, for each type of device."""
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
    return dtype_name(dtype) if enabled else "off"
