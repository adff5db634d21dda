"""Extends a simulation to the threads that start in it, because PyTorch keeps function modes per thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from torch.overrides import TorchFunctionMode

from pytest_llmdevice.simulation.functions import FunctionMode
from pytest_llmdevice.simulation.patches import Patches

P = ParamSpec("P")
T = TypeVar("T")


class _ThreadMode(TorchFunctionMode):
    """The function mode of a thread, which may outlive the simulation; it then does nothing."""

    def __init__(self, mode: FunctionMode) -> None:
        super().__init__()
        self._mode = mode
        self.ended = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self.ended:
            return func(*args, **(kwargs or {}))
        return self._mode.__torch_function__(func, types, args, kwargs)


def install(mode: FunctionMode, patches: Patches) -> None:
    """Run threads that start from now on, and functions submitted to a thread pool, inside the simulation."""
    thread_modes: set[_ThreadMode] = set()
    inside = threading.local()
    inside.mode = mode

    def end() -> None:
        for thread_mode in thread_modes:
            thread_mode.ended = True

    def within(function: Callable[P, T]) -> Callable[P, T]:
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            if getattr(inside, "mode", None) is not None:
                return function(*args, **kwargs)
            thread_mode = inside.mode = _ThreadMode(mode)
            thread_modes.add(thread_mode)
            try:
                with thread_mode:
                    return function(*args, **kwargs)
            finally:
                thread_modes.discard(thread_mode)
                inside.mode = None

        return run

    start, submit = threading.Thread.start, ThreadPoolExecutor.submit

    def start_inside(thread: threading.Thread) -> None:
        thread.run = within(thread.run)  # type: ignore[method-assign]
        start(thread)

    def submit_inside(
        pool: ThreadPoolExecutor, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        return submit(pool, within(function), *args, **kwargs)

    patches.later(end)
    patches.set(threading.Thread, "start", start_inside)
    patches.set(ThreadPoolExecutor, "submit", submit_inside)
