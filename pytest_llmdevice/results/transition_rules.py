"""Names each pair of outcomes that a check can have in a baseline and now: regression, fixed, and so on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pytest_llmdevice.results.transitions import Name
from pytest_llmdevice.results.vocabulary import CheckOutcome

AFTER: Final[tuple[CheckOutcome, ...]] = (
    "passed", "failed", "error", "hollow", "skipped", "xfail", "xpass", "aborted",
)  # fmt: skip
"""The columns of the table."""

# What failed and fails in another way is no news to a gate: the comparison has a note on it.
_ROWS: Final[Mapping[CheckOutcome, tuple[Name | None, ...]]] = {
    # before   passed   failed        error         hollow    skipped    xfail       xpass         aborted
    "passed":  (None,    "regression", "regression", "hollow", "skipped", "expected", "regression", "aborted"),
    "xfail":   ("fixed", "regression", "regression", "hollow", "skipped", None,       "fixed",      "aborted"),
    "xpass":   ("fixed", "regression", "regression", "hollow", "skipped", "expected", None,         "aborted"),
    "hollow":  ("fixed", "regression", "regression", None,     "skipped", "expected", "fixed",      "aborted"),
    "failed":  ("fixed", None,         None,         "hollow", "skipped", "expected", "fixed",      "aborted"),
    "error":   ("fixed", None,         None,         "hollow", "skipped", "expected", "fixed",      "aborted"),
    "aborted": ("fixed", None,         None,         "hollow", "skipped", "expected", "fixed",      None),
}  # fmt: skip

TRANSITIONS: Final[Mapping[CheckOutcome, Mapping[CheckOutcome, Name | None]]] = {
    before: dict(zip(AFTER, row, strict=True)) for before, row in _ROWS.items()
}
"""By the outcome in the baseline and the outcome now: the name; None where nothing changed. A check that was skipped is
no entry of a baseline, so no row is about it."""
