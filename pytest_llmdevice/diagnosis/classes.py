"""Assigns findings and exceptions to failure classes, for tools that count failures without reading them."""

from __future__ import annotations

import re
from typing import Final

from pytest_llmdevice.diagnosis.errors import chain, hint_of
from pytest_llmdevice.diagnosis.finding import Finding
from pytest_llmdevice.diagnosis.hints import FAMILIES, raised
from pytest_llmdevice.results.records import FailureClass

_CLASS_OF_ERROR: Final[dict[str, FailureClass]] = {
    raised.MEMORY.name: "out-of-memory",
    raised.LOST.name: "device-lost",
    raised.CAPABILITY.name: "unsupported-dtype",
    raised.FLOAT64.name: "unsupported-dtype",
    raised.MOVED.name: "library-refusal",
    raised.DEVICES.name: "placement",
    raised.META.name: "placement",
    raised.NO_SUCH_DEVICE.name: "placement",
    raised.DTYPES.name: "dtype",
}

_CLASS_OF_FAMILY: Final[dict[str, FailureClass]] = {
    "loads": "loader",
    "placement": "placement",
    "dtypes": "dtype",
    "values": "numeric",
    "quantization": "dtype",
    "state": "loader",
    "generation": "numeric",
    "sequences": "numeric",
    "saving": "loader",
}

_CLASS_OF_CHECK: Final[dict[str, FailureClass]] = {
    "loads": "loader",
    "meta": "placement",
    "placement": "placement",
    "dtypes": "dtype",
    "values": "numeric",
    "tied": "loader",
    "quantization": "dtype",
    "mode": "loader",
    "forward": "numeric",
    "inputs": "placement",
    "generation": "numeric",
    "agreement": "numeric",
    "padding": "numeric",
    "prefix": "numeric",
    "cache": "numeric",
    "sampling": "numeric",
    "save": "loader",
    "state": "loader",
    "reload": "loader",
    "cards": "placement",
}

_REFUSES: Final = re.compile(
    r"\b(not|isn't|doesn't|cannot be) (yet )?(supported?|implemented|compatible)\b", re.IGNORECASE
)


def class_of_findings(check: str, findings: tuple[Finding, ...]) -> FailureClass:
    """The class of the findings of `check`: by the first finding with a known cause, else by the check."""
    for finding in findings:
        if finding.hint is not None:
            return class_of_hint(finding.hint.name) or _CLASS_OF_CHECK.get(check, "other")
    return _CLASS_OF_CHECK.get(check, "other")


def class_of_hint(name: str) -> FailureClass | None:
    """The class of the known cause `name`; None for an unknown cause."""
    family = next((family for family, hints in FAMILIES.items() if name in hints), "")
    return _CLASS_OF_ERROR.get(name) or _CLASS_OF_FAMILY.get(family)


def class_of_error(error: BaseException, *, loading: bool = False) -> FailureClass:
    """The class of an exception, by its type and text.

    Args:
        error: the exception.
        loading: whether a load raised it.
    """
    hint = hint_of(error)
    if hint is not None:
        return _CLASS_OF_ERROR[hint.name]
    refusals = (cause for cause in chain(error) if isinstance(cause, (NotImplementedError, ValueError)))
    if any(_REFUSES.search(str(cause)) for cause in refusals):
        return "library-refusal"
    return "loader" if loading else "other"
