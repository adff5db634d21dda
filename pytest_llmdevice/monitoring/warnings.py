"""Records the warnings that libraries give or log, without hiding them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

ALWAYS_SHOWN: Final = (
    "You are calling .generate",
    "A decoder-only architecture is being used, but right-padding",
    "The attention mask",
)
"""Beginnings of the warnings that checks read: they are shown every time, whatever filters are set."""

_LOGGERS: Final = ("transformers", "accelerate", "peft", "bitsandbytes")


@contextmanager
def recorded_warnings() -> Iterator[list[str]]:
    """Record the texts of warnings, and of log records at level WARNING of `_LOGGERS`, inside the context; each once.

    Warnings and log records still reach the handlers that they would reach without it.
    """
    texts: dict[str, None] = {}
    recorded: list[str] = []

    def record_text(text: str) -> None:
        if text not in texts:
            texts[text] = None
            recorded.append(text)

    handler = _Recorder(record_text)
    with warnings.catch_warnings():
        for text in ALWAYS_SHOWN:
            warnings.filterwarnings("always", message=text.replace(".", r"\."))
        show = warnings.showwarning

        def showwarning(message: Warning | str, *args: Any, **kwargs: Any) -> None:
            record_text(str(message))
            show(message, *args, **kwargs)

        warnings.showwarning = showwarning
        for name in _LOGGERS:
            logging.getLogger(name).addHandler(handler)
        try:
            yield recorded
        finally:
            for name in _LOGGERS:
                logging.getLogger(name).removeHandler(handler)


@contextmanager
def noted_warnings() -> Iterator[list[str]]:
    """Note each warning inside the context, its class in front; whoever would have got it still does, and no more."""
    noted: list[str] = []
    show = warnings.showwarning

    def showwarning(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
        noted.append(f"{category.__name__}: {message}")
        show(message, category, *args, **kwargs)

    warnings.showwarning = showwarning
    try:
        yield noted
    finally:
        # A load may have put its own there, as `logging.captureWarnings` does.
        if warnings.showwarning is showwarning:
            warnings.showwarning = show


class _Recorder(logging.Handler):
    def __init__(self, record_text: Any) -> None:
        super().__init__(logging.WARNING)
        self.record_text = record_text

    def emit(self, record: logging.LogRecord) -> None:
        self.record_text(record.getMessage())
