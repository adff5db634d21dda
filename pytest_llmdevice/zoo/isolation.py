"""Fixes process-wide settings of torch and transformers while a checkpoint is built, and restores them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def pinned_settings(seed: int) -> Iterator[None]:
    """Make torch compute the same bytes inside, whatever the caller has set; restore the settings on leaving.

    It sets the CPU generator (seeded with `seed`), default dtype, default device, autograd modes, number of threads,
    and the progress bar of transformers.
    """
    import torch
    from transformers.utils import logging

    with ExitStack() as settings:
        settings.enter_context(torch.random.fork_rng(devices=[]))
        settings.enter_context(torch.device("cpu"))
        settings.enter_context(torch.inference_mode(False))
        settings.enter_context(torch.enable_grad())
        settings.enter_context(torch.autocast("cpu", enabled=False))
        settings.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        # The rounding of a sum depends on how it is split between threads.
        settings.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        progress: Any = logging
        if progress.is_progress_bar_enabled():
            settings.callback(progress.enable_progress_bar)
            progress.disable_progress_bar()
        # Not torch.manual_seed: it would seed the accelerators too.
        torch.default_generator.manual_seed(seed)
        yield
