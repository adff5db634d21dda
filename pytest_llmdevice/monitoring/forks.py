"""Forks a process so that the copy lives without the threads of the original."""

from __future__ import annotations

import gc
import os
import sys


def fork() -> int:
    """As `os.fork`, for a process that goes on to run code of any kind.

    A fork has one thread of its parent's; PyTorch's pool is made anew there. Garbage that owns threads, as a process
    group of PyTorch that a test left in a reference cycle does, waits for them when it is collected: in the fork for
    ever, or the fork dies of it, within whichever cell happens to be there. So the parent collects its garbage before,
    and in the child what the parent has made is no garbage any more.

    Returns:
        The number of the child; 0 in the child.

    Raises:
        OSError: the system has no room for one more process.
    """
    gc.collect()
    number = os.fork()  # noqa: TID251  # the one that all use
    if number == 0:
        gc.freeze()
        if "torch" in sys.modules:
            import torch

            # The first after a fork to ask for PyTorch's pool of threads makes a new one. Two threads that do so at
            # once, as when transformers reads weights, meet one that is not there yet ("Invalid thread pool!").
            torch.set_num_threads(torch.get_num_threads())
    return number
