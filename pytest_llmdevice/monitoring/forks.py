"""Forks a process so that the copy never ends what belongs to threads of the original."""

from __future__ import annotations

import gc
import os


def fork() -> int:
    """As `os.fork`, for a process that goes on to run code of any kind.

    A fork has no thread of its parent but one. Garbage that owns threads, as a process group of PyTorch that a test
    left in a reference cycle does, waits for them when it is collected: in the fork for ever, or the fork dies of it,
    within whichever cell happens to be there. So the parent collects its garbage before, and in the child what the
    parent has made is no garbage any more.

    Returns:
        The number of the child; 0 in the child.

    Raises:
        OSError: the system has no room for one more process.
    """
    gc.collect()
    number = os.fork()  # noqa: TID251  # the one that all use
    if number == 0:
        gc.freeze()
    return number
