"""Names each pair of outcomes that a check can have in a baseline and now: regression, fixed, and so on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pytest_llmdevice.results.transitions import Name
from pytest_llmdevice.results.vocabulary import CheckOutcome

AFTER: Final[tuple[CheckOutcome, ...]] = (
    "passed", "failed", "error", "hollow", "skipped", "xfail", "xpass", "aborted", "upstream",
)  # fmt: skip
"""The columns of the table."""

# What failed and fails in another way is no news to a gate: the comparison has a note on it.
_ROWS: Final[Mapping[CheckOutcome, tuple[Name | None, ...]]] = {
    # by the outcome before; the columns are those of AFTER
    "passed": (None, "regression", "regression", "hollow", "skipped", "expected", "regression", "aborted", "upstream"),
    "xfail": ("fixed", "regression", "regression", "hollow", "skipped", None, "fixed", "aborted", "upstream"),
    "xpass": ("fixed", "regression", "regression", "hollow", "skipped", "expected", None, "aborted", "upstream"),
    "upstream": ("fixed", "regression", "regression", "hollow", "skipped", "expected", "regression", "aborted", None),
    "hollow": ("fixed", "regression", "regression", None, "skipped", "expected", "fixed", "aborted", "upstream"),
    "failed": ("fixed", None, None, "hollow", "skipped", "expected", "fixed", "aborted", "upstream"),
    "error": ("fixed", None, None, "hollow", "skipped", "expected", "fixed", "aborted", "upstream"),
    "aborted": ("fixed", None, None, "hollow", "skipped", "expected", "fixed", None, "upstream"),
}  # fmt: skip

TRANSITIONS: Final[Mapping[CheckOutcome, Mapping[CheckOutcome, Name | None]]] = {
    before: dict(zip(AFTER, row, strict=True)) for before, row in _ROWS.items()
}
"""By the outcome in the baseline and the outcome now: the name; None where nothing changed. A check that was skipped is
no entry of a baseline, so no row is about it."""
