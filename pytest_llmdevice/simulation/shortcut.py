"""A shorter way into the interception for functions that PyTorch writes in Python."""

from __future__ import annotations

from typing import Any

import torch
from torch import overrides

from pytest_llmdevice.simulation.functions import Functions
from pytest_llmdevice.simulation.patches import Patches

stack: Any = overrides


def install(patches: Patches) -> None:
    """Spare `torch.nn.functional` and `torch.functional` the search for subclasses, too slow for an embedding.

    PyTorch collects the classes of all arguments before it asks the mode, and takes the mode off with a generator.
    The interception has no use for the classes, and is by far the commonest mode.
    """
    for module in (torch.nn.functional, torch.functional):
        patches.set(module, "handle_torch_function", _shorter(module.handle_torch_function))


def _shorter(handle: Any) -> Any:
    def handle_torch_function(function: Any, relevant: Any, *args: Any, **kwargs: Any) -> Any:
        mode = stack._get_current_function_mode()
        if not isinstance(mode, Functions):
            return handle(function, relevant, *args, **kwargs)
        stack._pop_mode()
        try:
            return mode.__torch_function__(function, (), args, kwargs)
        finally:
            stack._push_mode(mode)

    return handle_torch_function
