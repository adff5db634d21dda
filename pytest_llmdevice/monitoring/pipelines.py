"""Notices that a load makes a pipeline of transformers, which moves the model that it is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def pipelines_made() -> Iterator[list[str]]:
    """Record inside the context the name of the class of each pipeline that is made."""
    from transformers.pipelines.base import Pipeline

    made: list[str] = []
    kind: Any = Pipeline
    own = kind.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        made.append(type(self).__name__)
        own(self, *args, **kwargs)

    kind.__init__ = init
    try:
        yield made
    finally:
        if kind.__init__ is init:
            kind.__init__ = own
