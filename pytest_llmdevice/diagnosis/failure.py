"""Turns an exception of a model or a target into a finding: the module that raised it, and its usual cause."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.diagnosis.errors import hint_of
from pytest_llmdevice.diagnosis.finding import Finding
from pytest_llmdevice.errors import first_line

if TYPE_CHECKING:
    from types import TracebackType

    from torch import nn

FRAMES: Final = 8
"""How many innermost frames of a traceback are shown: the target's and the library's, without the test runner's."""


def finding_from_exception(error: BaseException, model: nn.Module | None = None, *, doing: str) -> Finding:
    """Make a finding of an exception, located at the innermost module of `model` in its traceback.

    Args:
        error: the exception, with its traceback.
        model: the model that was run; None if there was none yet.
        doing: the activity that raised ("generation").
    """
    module = failing_module(error, model) if model is not None else None
    where = doing if module is None else f"{doing}, in {module or 'the model itself'}"
    return Finding(where, "no exception", first_line(error), hint_of(error), kind="exception")


def failing_module(error: BaseException, model: nn.Module) -> str | None:
    """The name of the innermost module of `model` in the traceback of `error`, or None."""
    names = {id(module): name for name, module in model.named_modules()}
    innermost: str | None = None
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        owner: Any = trace.tb_frame.f_locals.get("self")
        if id(owner) in names:
            innermost = names[id(owner)]
        trace = trace.tb_next
    return innermost


def excerpt(error: BaseException) -> str:
    """The innermost frames of `error`, as Python prints them."""
    return "".join(traceback.format_exception(error, limit=-FRAMES)).rstrip()
