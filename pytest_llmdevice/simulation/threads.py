"""What other threads do inside a simulation is inside it too: the interception belongs to a thread, each needs one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from torch.overrides import TorchFunctionMode

from pytest_llmdevice.simulation.functions import Functions
from pytest_llmdevice.simulation.patches import Patches

P = ParamSpec("P")
T = TypeVar("T")


class _Fleeting(TorchFunctionMode):
    """The interception of a thread that may outlive the simulation: from then on it does nothing."""

    def __init__(self, functions: Functions) -> None:
        super().__init__()
        self._functions = functions
        self.over = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self.over:
            return func(*args, **(kwargs or {}))
        return self._functions.__torch_function__(func, types, args, kwargs)


def install(functions: Functions, patches: Patches) -> None:
    """Have threads that start from now on, and whatever is given to a pool of threads, run with the interception."""
    fleeting: set[_Fleeting] = set()
    inside = threading.local()
    inside.mode = functions

    def end() -> None:
        for mode in fleeting:
            mode.over = True

    def within(function: Callable[P, T]) -> Callable[P, T]:
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            if getattr(inside, "mode", None) is not None:
                return function(*args, **kwargs)
            mode = inside.mode = _Fleeting(functions)
            fleeting.add(mode)
            try:
                with mode:
                    return function(*args, **kwargs)
            finally:
                fleeting.discard(mode)
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
