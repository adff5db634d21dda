"""Groups what is wrong in results: what has one cause is one problem, over checks and cells.

The causes of each cell come from `results.causes`. Causes of several cells that have a hint in common, or say the same,
are one problem, whatever follows from them in each.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pytest_llmdevice.results.causes import Cause, Complaint, causes_of
from pytest_llmdevice.results.cell_view import CellView, Key, base_id
from pytest_llmdevice.results.consequences import ALIKE
from pytest_llmdevice.results.merged_results import MergedResults
from pytest_llmdevice.results.records import RecordedFinding
from pytest_llmdevice.results.vocabulary import OUTCOME_WORDS, WORST_FIRST, Outcome
from pytest_llmdevice.text import listed, plural

EXAMPLES: Final = 3
"""Findings that are kept of each problem."""


@dataclass
class Follower:
    """A check that fails because of a problem that another one found.

    Attributes:
        check: its name.
        cells: in how many cells it does.
        findings: how many findings it has there.
        message: what it said first.
        finding: the first of its findings, one with a hint if there is one; None where there are only messages.
    """

    check: str
    cells: int = 0
    findings: int = 0
    message: str = ""
    finding: RecordedFinding | None = None

    @property
    def description(self) -> str:
        """The finding in words, or the message."""
        return described(self.finding, self.message)

    def add(self, complaint: Complaint, *, new: bool) -> None:
        """Take in a complaint; `new` says that it is the first one of its cell."""
        self.cells += new
        self.findings += len(complaint.findings)
        self.message = self.message or complaint.message
        if complaint.finding is not None and (self.finding is None or (complaint.hint and not self.finding.hint)):
            self.finding = complaint.finding


@dataclass
class Problem:
    """One thing that is wrong, in one cell or in many.

    Attributes:
        outcome: the worst outcome of the checks that found it.
        message: what the first of them said.
        cells: the cells that have it, in the order of the matrix.
        checks: the names of the checks that found it, in the order in which they did.
        findings: how many findings say it, those once that several checks of a cell have; 0 where there are only
            messages.
        examples: the first `EXAMPLES` different findings; empty where there are only messages.
        follows: the checks that fail because of it, by name.
        where: by the cells that have it, the checks that found it there, and those that follow from it there.
    """

    outcome: Outcome
    message: str
    cells: list[CellView] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    findings: int = 0
    examples: list[RecordedFinding] = field(default_factory=list)
    follows: dict[str, Follower] = field(default_factory=dict)
    where: dict[Key, tuple[set[str], set[str]]] = field(default_factory=dict, repr=False)

    @property
    def finding(self) -> RecordedFinding | None:
        """The first finding; None where there are only messages."""
        return self.examples[0] if self.examples else None

    @property
    def title(self) -> str:
        """`"failed in 3 cells (1 simulated): dtypes, and 2 checks that follow from it"`."""
        more = f", and {self.following}" if self.following else ""
        return f"{self.place}: {self.found_by}{more}"

    @property
    def place(self) -> str:
        """`"failed in 3 cells (1 simulated)"`."""
        count, simulated = len(self.cells), sum(view.cell.simulated for view in self.cells)
        cells = plural(count, "simulated cell" if simulated == count else "cell")
        some = f" ({simulated:,} simulated)" if 0 < simulated < count else ""
        return f"{OUTCOME_WORDS[self.outcome]} in {cells}{some}"

    @property
    def found_by(self) -> str:
        """The first checks, and how many others there are: `"dtypes, values, save, reload and 2 more"`."""
        return listed(self.checks, 4)

    @property
    def following(self) -> str:
        """`"7 checks that follow from it"`; empty where nothing does."""
        count = len(self.follows)
        return f"{plural(count, 'check')} that {'follows' if count == 1 else 'follow'} from it" if count else ""

    @property
    def followers(self) -> str:
        """All that follows, by name: `"forward, generation, agreement"`."""
        return ", ".join(self.follows)

    @property
    def description(self) -> str:
        """`"lm_head.weight: expected bfloat16, found float32"`, or the message where there is no finding."""
        return described(self.finding, self.message)

    @property
    def name(self) -> str:
        """The known cause, or else the description: what tells it from other problems in a list."""
        return self.examples[0].hint if self.examples and self.examples[0].hint else self.description

    @property
    def advised(self) -> RecordedFinding | None:
        """The finding whose hint says most: of the cause, else the first one that follows and has a hint."""
        findings = [self.finding, *(follower.finding for follower in self.follows.values())]
        return next((finding for finding in findings if finding is not None and finding.hint), None)

    @property
    def first(self) -> CellView:
        """The first cell; a real one if there is one."""
        return min(self.cells, key=lambda view: view.cell.simulated)

    def add(self, view: CellView, cause: Cause) -> None:
        """Take in that `view` has it."""
        root = cause.root
        self.outcome = min(self.outcome, root.outcome, key=WORST_FIRST.index)
        if not self.cells or self.cells[-1] is not view:
            self.cells.append(view)
        if root.check not in self.checks:
            self.checks.append(root.check)
            # In another cell it followed from this one.
            self.follows.pop(root.check, None)
        told: set[RecordedFinding] = set()
        self._add_findings(root, told)
        roots, others = self.where.setdefault((view.target, base_id(view.id)), (set(), set()))
        roots.add(root.check)
        seen: set[str] = set()
        for complaint in cause.follows:
            (roots if _key(complaint) == _key(root) else others).add(complaint.check)
            if _key(complaint) == _key(root) and complaint.check not in self.checks:
                # One exception, one hint: it is the cause itself that several checks have found.
                self.checks.append(complaint.check)
                self.follows.pop(complaint.check, None)
            if complaint.check in self.checks:
                self._add_findings(complaint, told)
                continue
            follower = self.follows.setdefault(complaint.check, Follower(complaint.check))
            follower.add(complaint, new=complaint.check not in seen)
            seen.add(complaint.check)

    def _add_findings(self, complaint: Complaint, told: set[RecordedFinding]) -> None:
        self.findings += len(set(complaint.findings) - told)
        told.update(complaint.findings)
        self.examples += [finding for finding in dict.fromkeys(complaint.findings) if finding not in self.examples]
        del self.examples[EXAMPLES:]


def find_problems(results: MergedResults) -> list[Problem]:
    """Everything that makes `results` red, what concerns most cells first; among equals the worst."""
    found = [(view, cause) for view in results.cells.values() for cause in causes_of(view)]
    same = _same_causes([cause for _, cause in found])
    problems: dict[Hashable, Problem] = {}
    for view, cause in sorted(found, key=lambda pair: same[_key(pair[1].root)] != _key(pair[1].root)):
        problem = problems.setdefault(same[_key(cause.root)], Problem(cause.root.outcome, cause.root.message))
        problem.add(view, cause)
    place = {id(view): number for number, view in enumerate(results.cells.values())}
    for problem in problems.values():
        problem.cells = sorted({id(view): view for view in problem.cells}.values(), key=lambda view: place[id(view)])
    return sorted(problems.values(), key=lambda problem: (-len(problem.cells), WORST_FIRST.index(problem.outcome)))


Place = tuple[str, str, str]
"""Target, cell by its base id, and check."""


def places_of(problems: Sequence[Problem]) -> dict[Place, tuple[int, bool]]:
    """By target, cell and check: the number of the problem, and whether the check has found its cause.

    Of a check that has found several causes, it is that of the first problem.
    """
    places: dict[Place, tuple[int, bool]] = {}
    for number, problem in enumerate(problems):
        for (target, cell), (roots, others) in problem.where.items():
            for check in others:
                places.setdefault((target, cell, check), (number, False))
            for check in roots:
                if not places.get((target, cell, check), (number, False))[1]:
                    places[target, cell, check] = number, True
    return places


def described(finding: RecordedFinding | None, message: str) -> str:
    """`"lm_head.weight: expected bfloat16, found float32"`, or the message where there is no finding."""
    if finding is None:
        return message
    return f"{finding.where}: expected {finding.expected}, found {finding.actual}"


def _key(complaint: Complaint) -> Hashable:
    return ALIKE.get(complaint.hint, complaint.key) if complaint.hint else complaint.key


def _same_causes(causes: list[Cause]) -> dict[Hashable, Hashable]:
    """By the key of each cause, the key of the problem that it belongs to.

    What is wrong with a tensor may be a cause in one cell, and in another follow from what else is wrong with that
    tensor: a head that was made anew is in another dtype everywhere, and on another device on a card only.
    """
    above: dict[Hashable, Hashable] = {_key(cause.root): _key(cause.root) for cause in causes}

    def top(key: Hashable) -> Hashable:
        while above[key] != key:
            key = above[key]
        return key

    for cause in causes:
        for complaint in cause.follows:
            key = _key(complaint)
            if cause.root.kind == complaint.kind == "tensors" and key in above and top(_key(cause.root)) != top(key):
                above[top(key)] = top(_key(cause.root))
    return {key: top(key) for key in above}
