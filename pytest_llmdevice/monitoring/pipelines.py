"""Notices that a load makes a pipeline of transformers, which moves the model that it is given."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

MODULE: Final = "transformers.pipelines.base"


@contextmanager
def pipelines_made() -> Iterator[list[str]]:
    """Record inside the context the name of the class of each pipeline that is made.

    Where transformers' pipelines are imported only inside it, that import is what is recorded: it is not done for a
    plain load.
    """
    made: list[str] = []
    kind: Any = getattr(sys.modules.get(MODULE), "Pipeline", None)
    if kind is None:
        try:
            yield made
        finally:
            if MODULE in sys.modules:
                made.append(MODULE)
        return
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
