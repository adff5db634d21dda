"""Defines the words that records use: outcomes of checks and cells, and causes of what did not run."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

CheckOutcome: TypeAlias = Literal[
    "passed", "failed", "error", "hollow", "skipped", "xfail", "xpass", "aborted", "upstream"
]
"""What a check can be. `failed`: it found something. `error`: it could not be made, the cell did not load. `hollow`: it
looked at nothing. `xfail` and `xpass`: it was expected to fail, and did or did not. `aborted`: the run, the worker or
the device was gone before it could end. `upstream`: a plain load of the cell, by the library alone, has all that it
found too."""

Outcome: TypeAlias = CheckOutcome | Literal["partial"]
"""What a cell can be: the worst of its checks, or `partial`: nothing that ran is wrong, but the cell was not loaded, or
not all of the checks ran that the matrix requires."""

SkipCause: TypeAlias = Literal[
    "not requested", "absent", "unusable", "unsupported", "not offered", "does not apply", "by the test"
]
"""Why something did not run: the five causes of a verdict (`not offered`: the code under test says that it does not do
it), a check that is about what the model has not (`does not apply`), and a test that skips itself."""

WORST_FIRST: Final[tuple[Outcome, ...]] = (
    "error",
    "failed",
    "aborted",
    "hollow",
    "xpass",
    "partial",
    "xfail",
    "upstream",
    "passed",
    "skipped",
)
"""Of several outcomes of a cell, the first in this order is the cell's."""

BAD: Final[frozenset[Outcome]] = frozenset({"error", "failed", "aborted", "hollow", "xpass"})
"""Outcomes that make a run red."""

GOOD: Final[frozenset[Outcome]] = frozenset({"passed", "xfail", "upstream"})
"""Outcomes with which nothing is held against the code under test."""

OUTCOME_WORDS: Final[dict[Outcome, str]] = {
    "error": "error",
    "failed": "failed",
    "aborted": "aborted",
    "hollow": "hollow",
    "xpass": "passed unexpectedly",
    "partial": "partly run",
    "xfail": "failed as expected",
    "upstream": "upstream",
    "passed": "passed",
    "skipped": "not run",
}
"""What every reader is shown for an outcome: in a terminal, in a report, and in the answer of the gate."""

assert set(WORST_FIRST) == {*get_args(CheckOutcome), "partial"} == set(OUTCOME_WORDS)


def outcome_text(text: str) -> str:
    """The words of the outcome `text`; `text` itself where it is none, such as a time that was measured."""
    return next((words for outcome, words in OUTCOME_WORDS.items() if outcome == text), text)
