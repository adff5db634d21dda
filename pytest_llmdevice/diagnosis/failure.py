"""An exception that a model or a target raised, as a finding: in which module, and what it usually means."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.diagnosis.errors import hint_of
from pytest_llmdevice.diagnosis.finding import Finding
from pytest_llmdevice.text import first_line

if TYPE_CHECKING:
    from types import TracebackType

    from torch import nn

FRAMES: Final = 8
"""Innermost frames shown of an error: the target's and the library's, not the way to them."""


def raised(error: BaseException, model: nn.Module | None = None, *, doing: str) -> Finding:
    """What `error` says, at the innermost module of `model` whose forward it left.

    Args:
        error: the exception, with its traceback.
        model: the model that was run, None when there was none yet.
        doing: what was under way ("generation"), named where no module is.
    """
    module = failing_module(error, model) if model is not None else None
    where = doing if module is None else f"{doing}, in {module or 'the model itself'}"
    return Finding(where, "no exception", first_line(error), hint_of(error), kind="exception")


def failing_module(error: BaseException, model: nn.Module) -> str | None:
    """The name of the innermost module of `model` that `error` passed through; None when it passed through none."""
    names = {id(module): name for name, module in model.named_modules()}
    found: str | None = None
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        owner: Any = trace.tb_frame.f_locals.get("self")
        if id(owner) in names:
            found = names[id(owner)]
        trace = trace.tb_next
    return found


def excerpt(error: BaseException) -> str:
    """The innermost frames of `error`, as Python prints them."""
    return "".join(traceback.format_exception(error, limit=-FRAMES)).rstrip()
