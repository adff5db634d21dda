"""Assigns findings and exceptions to failure classes, for tools that count failures without reading them."""

from __future__ import annotations

import re
from typing import Final

from pytest_llmdevice.diagnosis.errors import chain, hint_of
from pytest_llmdevice.diagnosis.finding import Finding, Hint
from pytest_llmdevice.errors import FailureClass, message_of
from pytest_llmdevice.matrix.registry import current

_REFUSES: Final = re.compile(
    r"\b(not|isn't|doesn't|cannot be) (yet )?(supported?|implemented|compatible)\b", re.IGNORECASE
)


def class_of_findings(check: str, findings: tuple[Finding, ...]) -> FailureClass:
    """The class of the findings of `check`: by the first finding with a known cause, else by the check."""
    for finding in findings:
        if finding.hint is not None:
            return class_of_hint(finding.hint.name) or _of_check(check)
    return _of_check(check)


def class_of_hint(name: str) -> FailureClass | None:
    """The class of a known cause; None of an unknown one."""
    hint = current().of(Hint).get(name)
    return None if hint is None else hint.failure


def _of_check(name: str) -> FailureClass:
    check = current().get("check", name)
    failure: FailureClass = "other" if check is None else check.failure
    return failure


def class_of_error(error: BaseException, *, loading: bool = False) -> FailureClass:
    """The class of an exception, by its type and text.

    Args:
        error: the exception.
        loading: whether a load raised it.
    """
    hint = hint_of(error)
    if hint is not None and hint.failure is not None:
        return hint.failure
    if any(
        isinstance(link, (NotImplementedError, ValueError)) and _REFUSES.search(message_of(link))
        for link in chain(error)
    ):
        return "library-refusal"
    return "loader" if loading else "other"
