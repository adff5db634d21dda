"""What libraries warn of, noted on its way to wherever it goes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

TEXTS: Final = (
    "You are calling .generate",
    "A decoder-only architecture is being used, but right-padding",
    "The attention mask",
)
"""How the warnings begin that mean something here: they are to be given each time, whatever a filter says."""

_LOGGERS: Final = ("transformers", "accelerate", "peft", "bitsandbytes")


@contextmanager
def warned() -> Iterator[list[str]]:
    """The texts of warnings, and of what these libraries log as one, while the context lasts; each once.

    Nothing is swallowed: what was shown or recorded before still is.
    """
    texts: dict[str, None] = {}
    found: list[str] = []

    def note(text: str) -> None:
        if text not in texts:
            texts[text] = None
            found.append(text)

    handler = _Noting(note)
    with warnings.catch_warnings():
        for text in TEXTS:
            warnings.filterwarnings("always", message=text.replace(".", r"\."))
        show = warnings.showwarning

        def showwarning(message: Warning | str, *args: Any, **kwargs: Any) -> None:
            note(str(message))
            show(message, *args, **kwargs)

        warnings.showwarning = showwarning
        for name in _LOGGERS:
            logging.getLogger(name).addHandler(handler)
        try:
            yield found
        finally:
            for name in _LOGGERS:
                logging.getLogger(name).removeHandler(handler)


class _Noting(logging.Handler):
    def __init__(self, note: Any) -> None:
        super().__init__(logging.WARNING)
        self.note = note

    def emit(self, record: logging.LogRecord) -> None:
        self.note(record.getMessage())
