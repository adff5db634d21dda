"""Finds the causes of what is wrong with a cell, and orders the rest behind the cause that it follows from."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from pytest_llmdevice.matrix.vocabulary import checks as known_checks
from pytest_llmdevice.results import consequences
from pytest_llmdevice.results.cell_view import CellView
from pytest_llmdevice.results.consequences import (
    CASTS,
    EXACT,
    FOLLOWS,
    KINDS,
    OF_CAUSE,
    OF_TENSORS,
    ONE_TENSOR,
    ONLY_AFTER,
    PAIRS,
    ROUNDED,
    SEEN_BY,
    WHOLE,
    Kind,
)
from pytest_llmdevice.results.records import Check, RecordedFinding
from pytest_llmdevice.results.vocabulary import BAD, OUTCOME_WORDS, Outcome

WHOLE_CELL: Final = "the cell"
"""What stands for a check where a cell is bad and none of its checks is."""


@dataclass(eq=False)
class Complaint:
    """What one check says of a cell, as far as it has one reason.

    Attributes:
        check: the check.
        outcome: of the check.
        message: its first line.
        findings: those of one hint, or those without one that say the same; empty where there is only a message.
        finding: the first finding; None where there is only a message.
        hint: the name of the known cause; empty where there is none.
        kind: what it is about.
        key: what complaints of one cause have in common: the hint; else all but places, numbers, addresses and paths.
    """

    check: str
    outcome: Outcome
    message: str
    findings: tuple[RecordedFinding, ...] = ()
    finding: RecordedFinding | None = field(init=False)
    hint: str = field(init=False)
    kind: Kind = field(init=False)
    key: Hashable = field(init=False)

    def __post_init__(self) -> None:
        self.finding = self.findings[0] if self.findings else None
        self.hint = self.finding.hint if self.finding is not None else ""
        self.kind = self._kind()
        self.key = self._key()

    def _kind(self) -> Kind:
        of_finding = self.finding.kind if self.finding is not None else ""
        return consequences.kind_of(self.check, self.outcome, self.hint, of_finding)

    def _key(self) -> Hashable:
        if self.hint:
            return self.hint
        # What keeps a check from being made, such as a load that fails, is one problem for all checks of a cell.
        asked = "" if self.outcome in {"error", "aborted"} else self.check
        finding = self.finding
        if finding is None:
            return asked, self.outcome, normalized(self.message)
        expected, actual = normalized(finding.expected), normalized(finding.actual)
        # One exception that is raised in many places is one problem, and so is a load that gives no model.
        return (expected, actual) if finding.kind in {"exception", "no model"} else (asked, expected, actual)

    def says(self, other: Complaint) -> bool:
        """Whether it has found the same thing as `other`, at whatever place: the same dtype, or the same mode."""
        found = {finding.actual for finding in other.findings}
        return any(finding.actual.startswith(tuple(found)) for finding in self.findings)

    @cached_property
    def tensors(self) -> frozenset[str]:
        """The tensors or modules that it names, without `.weight` and `.bias`."""
        return frozenset(name for finding in self.findings for name in _names(finding.where))


@dataclass
class Cause:
    """One thing that is wrong with a cell, and what follows from it.

    Attributes:
        root: the complaint that explains the others.
        follows: the others, in the order of what they are about.
    """

    root: Complaint
    follows: list[Complaint] = field(default_factory=list)


def causes_of(view: CellView) -> list[Cause]:
    """The causes of all that is bad in a cell, the earliest first; none where the cell is good."""
    if view.outcome not in BAD:
        return []
    order = known_checks()
    complaints = sorted(complaints_of(view), key=lambda complaint: _rank(complaint, order))
    above: dict[int, int] = {}
    for number in range(len(complaints)):
        explaining = next((before for before in range(number) if _explains(complaints, before, number)), None)
        if explaining is not None:
            above[number] = above.get(explaining, explaining)
    causes = {number: Cause(one) for number, one in enumerate(complaints) if number not in above}
    for number, root in above.items():
        causes[root].follows.append(complaints[number])
    return list(causes.values())


def complaints_of(view: CellView) -> list[Complaint]:
    """All that is bad in a cell: of each check, a complaint for each hint, and for each thing said without one."""
    bad: list[Check] = [sample.check for sample in view.checks.values() if sample.check.outcome in BAD]
    found = [complaint for check in bad for complaint in _of_check(check)]
    if not bad and view.outcome == "aborted":
        said = "its run, its worker or its device was gone before it was finished"
        found.append(Complaint(WHOLE_CELL, "aborted", said))
    elif not bad:
        said = f"the whole cell is recorded as {OUTCOME_WORDS[view.outcome]}"
        found.append(Complaint(WHOLE_CELL, view.outcome, said))
    return found


def _of_check(check: Check) -> Iterator[Complaint]:
    message = check.message or OUTCOME_WORDS[check.outcome]
    if not check.findings:
        # A check that found nothing and still is not good, because it looked at nothing, or passed unexpectedly.
        yield Complaint(check.check, check.outcome, message)
        return
    groups: dict[Hashable, list[RecordedFinding]] = {}
    for finding in check.findings:
        said: Hashable = Complaint(check.check, check.outcome, message, (finding,)).key
        groups.setdefault((said, finding.kind), []).append(finding)
    for findings in groups.values():
        yield Complaint(check.check, check.outcome, message, tuple(findings))


def _rank(complaint: Complaint, order: Sequence[str]) -> tuple[int, bool, bool, int]:
    """Sorts causes before what can follow from them, and what is of one kind as its checks are made."""
    place = order.index(complaint.check) if complaint.check in order else len(order)
    # A forward pass that ends is no better than one that raises: what it gives may be what raises later on.
    kind = "raised" if complaint.check == "forward" and complaint.kind == "behaviour" else complaint.kind
    concluded = SEEN_BY.get(complaint.hint, complaint.check) != complaint.check
    return KINDS.index(kind), complaint.hint not in EXACT, concluded, place


def _explains(complaints: Sequence[Complaint], earlier: int, later: int) -> bool:
    """Whether the complaint number `earlier` explains the one number `later` of the same cell."""
    cause, other = complaints[earlier], complaints[later]
    if cause.key == other.key and cause.kind == other.kind:
        return True
    if cause.kind == other.kind == "tensors":
        return _one_mistake(cause, other)
    if other.hint == "model-kept-alive":
        # A traceback keeps all that it has met.
        return cause.kind == "raised"
    if other.hint in ONE_TENSOR:
        again = cause.kind == "mode" and other.says(cause)
        return again or (cause.kind in {"other model", "tensors"} and bool(cause.tensors & other.tensors))
    if cause.kind == "other model" and other.kind == "tensors":
        return other.hint in OF_TENSORS.get(cause.hint, {""})
    if other.kind not in OF_CAUSE.get(cause.hint, FOLLOWS.get(cause.kind, frozenset())):
        return False
    if cause.kind in {"no model", "raised", "limit"}:
        return _keeps_from(cause, other)
    # Dropout, and a model that is another one since it generated, explain whatever is said twice differently.
    if other.hint in ONLY_AFTER and cause.kind not in {"mode", "changed"}:
        return cause.check in ONLY_AFTER[other.hint]
    if other.kind == "raised" and not other.hint:
        return _raises(cause, other)
    # The generation, and what it did to the model, come after the first forward pass.
    return not (cause.kind == "changed" and other.check == "forward")


def _one_mistake(cause: Complaint, other: Complaint) -> bool:
    """Whether two complaints about tensors are of one mistake: about the same tensors, or a cast and its rounding."""
    if cause.hint in CASTS and other.hint in ROUNDED | {"config-dtype"}:
        return True
    if (cause.hint, other.hint) in PAIRS:
        return True
    if cause.check == other.check == "dtypes":
        return other.says(cause)
    if cause.hint in WHOLE and other.hint in WHOLE:
        return False
    return bool(cause.tensors & other.tensors)


def _keeps_from(cause: Complaint, other: Complaint) -> bool:
    """Whether what was raised, or a load that failed, is why `other` could not be looked at, or raised too."""
    if cause.kind == "no model":
        return True
    if other.kind in {"hollow", "aborted"}:
        return True
    if other.check == cause.check:
        # What the check saw on the way to it.
        return not other.hint
    # A model that cannot be run at all fails wherever it is run.
    return cause.check == "forward" and (other.kind == "raised" or not other.hint)


def _raises(cause: Complaint, other: Complaint) -> bool:
    """Whether an exception whose text is not known comes of `cause`."""
    if cause.kind == "handed":
        return consequences.runs_target(other.check)
    # The checks' own code raises for no model that is as it should be; the target's may have faults of its own.
    return cause.kind == "other model" or not consequences.runs_target(other.check)


_LAYERS: Final = r"\{\d+(?:\.\.\d+)?(?:,\d+(?:\.\.\d+)?)*\}"
_NAME: Final = re.compile(rf"[A-Za-z_][\w.]*(?:{_LAYERS}[\w.]*)*")


def _names(where: str) -> Iterator[str]:
    """The tensor that `where` begins with, each of several layers by itself: `a.{0,1}.b.weight` is `a.0.b`, `a.1.b`."""
    match = _NAME.match(where)
    if match is None or ("." not in match[0] and match[0] != where.partition(",")[0]):
        return
    for name in _expanded(match[0]):
        yield name.removesuffix(".weight").removesuffix(".bias")


def _expanded(name: str) -> list[str]:
    before, opened, rest = name.partition("{")
    if not opened:
        return [name]
    inside, _, after = rest.partition("}")
    numbers: list[str] = []
    for part in inside.split(","):
        first, dots, last = part.partition("..")
        numbers += map(str, range(int(first), int(last) + 1)) if dots else [part]
    return [f"{before}{number}{tail}" for number in numbers for tail in _expanded(after)]


_NORMAL: Final = (
    (re.compile(r"0x[0-9a-fA-F]+"), "0x#"),
    (re.compile(r"(?<![\w:])(?:[~.]?/[\w.+~-]+){2,}"), "a path"),
    # Not within a word: `float16` and `int8` are no quantities.
    (re.compile(r"(?<![A-Za-z0-9_])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![A-Za-z_])"), "#"),
    (re.compile(r"\[[^\[\]]*\]|\{[\d,.#]*\}"), "#"),
)


def normalized(text: str) -> str:
    """`text` without numbers, lists, addresses and paths."""
    for pattern, replacement in _NORMAL:
        text = pattern.sub(replacement, text[:2000])
    return text
