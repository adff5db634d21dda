"""Names what can become of a check or cell since a baseline was written, and holds a whole comparison as data."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from pytest_llmdevice.results.vocabulary import SkipCause
from pytest_llmdevice.text import plural

Name: TypeAlias = Literal[
    "regression",
    "aborted",
    "hollow",
    "vanished",
    "skipped",
    "unsupported",
    "unusable",
    "withdrawn",
    "inapplicable",
    "excused",
    "absent",
    "not-requested",
    "other-tokens",
    "slower",
    "larger",
    "not-comparable",
    "upstream",
    "expected",
    "unused",
    "fixed",
    "new",
]
"""`regression`: passed, and now fails, is an error or passes although it was expected to fail; or was expected to fail
and is not any more. `vanished`: the matrix has the cell, and the check is not there any more. `skipped`: a test, a
fixture or the code under test skipped it. `unsupported`: a library says that it cannot do
it. `unusable`: what it needs is here and does not work. `withdrawn`: the code under test does not offer it any more.
`inapplicable`: the model has no longer what the check is about. `excused`: a check of the suite that something else
than the matrix expects to fail. `absent`: this machine has no such device. `not-requested`: the run was told to leave
it out. `unused`: the matrix or the run has no such cell or target any more. `expected`: is now declared as an expected
failure. `upstream`: what it finds, a plain load has too now. `not-comparable`: other hardware or versions.
docs/results.md has the table of all pairs,
`transition_rules.TRANSITIONS` is it."""

NAMES: Final[tuple[Name, ...]] = get_args(Name)
"""All names, the worst first."""

NOT_RUN: Final[frozenset[Name]] = frozenset(
    {"skipped", "unsupported", "unusable", "withdrawn", "inapplicable", "absent", "not-requested"}
)
"""The names of what did not run, which differ by the cause."""

OF_CAUSE: Final[dict[SkipCause, Name]] = {
    "by the test": "skipped",
    "unsupported": "unsupported",
    "unusable": "unusable",
    "not offered": "withdrawn",
    "does not apply": "inapplicable",
    "absent": "absent",
    "not requested": "not-requested",
}
"""The name of what did not run, by its cause."""

FAILING: Final = "failing"
"""A word of `--fail-on` beside the names: whatever makes a run red now and did not for the baseline, under any name."""

INCOMPLETE: Final = "incomplete"
"""Another such word: parts of a run are missing."""

FAIL_ON_WORDS: Final = (*(name for name in NAMES if name != "larger"), "memory", FAILING, INCOMPLETE)
"""What `--fail-on` takes; `larger` is spelled `memory`, and both are understood."""

DEFAULT: Final = (
    "regression,aborted,hollow,vanished,skipped,unsupported,unusable,withdrawn,inapplicable,excused,failing,incomplete"
)
"""What fails where nothing else is asked for: what is worse for certain, and what ran and is now kept from running.
Timings and memory are not, nor is what was not asked for or has no device here, which is for `[require]` to say."""

_PHRASES: Final[dict[Name, tuple[str, str]]] = {
    "regression": ("regression", "regressions"),
    "aborted": ("aborted", "aborted"),
    "hollow": ("hollow", "hollow"),
    "vanished": ("vanished", "vanished"),
    "skipped": ("skipped", "skipped"),
    "unsupported": ("unsupported now", "unsupported now"),
    "unusable": ("unusable now", "unusable now"),
    "withdrawn": ("withdrawn", "withdrawn"),
    "inapplicable": ("not applicable any more", "not applicable any more"),
    "excused": ("excused", "excused"),
    "absent": ("absent here", "absent here"),
    "not-requested": ("not requested", "not requested"),
    "other-tokens": ("with other tokens", "with other tokens"),
    "slower": ("slower", "slower"),
    "larger": ("larger", "larger"),
    "not-comparable": ("not comparable", "not comparable"),
    "upstream": ("upstream now", "upstream now"),
    "expected": ("now expected to fail", "now expected to fail"),
    "unused": ("unused entry", "unused entries"),
    "fixed": ("fixed", "fixed"),
    "new": ("new", "new"),
}
"""After the number 1, and after another one."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One difference from the baseline.

    Attributes:
        name: what kind of difference.
        cell: the id of the cell.
        check: the check; empty where it is about the whole cell (`slower`, `larger`, `other-tokens`).
        target: the code under test.
        before: what the baseline has, in a few words.
        after: what is there now, in a few words.
        detail: the finding, the reason, or what differs in hardware and versions; may be empty.
        failing: whether it makes a run red now and did not when the baseline was written, whatever its name.
    """

    name: Name
    cell: str
    check: str
    target: str
    before: str
    after: str
    detail: str = ""
    failing: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """Results held against a baseline.

    Attributes:
        baseline: the file.
        transitions: every difference, the worst names first, then by cell.
        unchanged: how many entries are as they were.
        notes: sentences on what could not be compared at all, such as timings with one sample.
    """

    baseline: str
    transitions: tuple[Transition, ...]
    unchanged: int
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> Counter[Name]:
        """How many transitions there are of each name."""
        return Counter(transition.name for transition in self.transitions)


def count_text(name: Name, count: int) -> str:
    """`"3 regressions"`, `"1 not comparable"`."""
    return plural(count, *_PHRASES[name])
