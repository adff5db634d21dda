"""Finds the known cause of an exception of torch, transformers, accelerate or bitsandbytes by its text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from pytest_llmdevice.diagnosis.finding import Hint
from pytest_llmdevice.errors import message_of
from pytest_llmdevice.matrix.registry import current


def hint_of(error: BaseException) -> Hint | None:
    """What `error`, or what it was raised from, usually means; None when its text is not known."""
    known = [hint for hint in current().of(Hint).values() if hint.patterns]
    for link in chain(error):
        text = f"{type(link).__name__}: {message_of(link)}"
        for hint in known:
            if _pattern(hint.patterns).search(text):
                return hint
    return None


@cache
def _pattern(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(patterns))


def chain(error: BaseException) -> Iterator[BaseException]:
    """`error`, then the exceptions that it was raised from or while handling, outermost first."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)
