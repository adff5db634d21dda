"""What kind of thing went wrong, for whoever counts failures and does not read them."""

from __future__ import annotations

import re
from typing import Final

from pytest_llmdevice.diagnosis.errors import chain, hint_of
from pytest_llmdevice.diagnosis.finding import Finding
from pytest_llmdevice.diagnosis.hints import FAMILIES, raised
from pytest_llmdevice.results.vocabulary import FailureClass

_OF_ERRORS: Final[dict[str, FailureClass]] = {
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

_OF_FAMILIES: Final[dict[str, FailureClass]] = {
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

_OF_CHECKS: Final[dict[str, FailureClass]] = {
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


def of_findings(check: str, findings: tuple[Finding, ...]) -> FailureClass:
    """The class of what `check` found: by the known cause of the first finding that has one, else by the check."""
    for finding in findings:
        if finding.hint is not None:
            return of_hint(finding.hint.name) or _OF_CHECKS.get(check, "other")
    return _OF_CHECKS.get(check, "other")


def of_hint(name: str) -> FailureClass | None:
    """The class of a known cause; None of an unknown one."""
    family = next((family for family, hints in FAMILIES.items() if name in hints), "")
    return _OF_ERRORS.get(name) or _OF_FAMILIES.get(family)


def of_error(error: BaseException, *, loading: bool = False) -> FailureClass:
    """The class of an exception, by what it says; `loading` when a load raised it."""
    hint = hint_of(error)
    if hint is not None:
        return _OF_ERRORS[hint.name]
    if any(isinstance(one, (NotImplementedError, ValueError)) and _REFUSES.search(str(one)) for one in chain(error)):
        return "library-refusal"
    return "loader" if loading else "other"
